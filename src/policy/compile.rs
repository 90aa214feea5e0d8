//! From files as written to a [`Snapshot`], or to every fault at once.

mod hosts;
mod looser;
mod requirement;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};

use self::requirement::Requirements;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::pattern::Pattern;
use super::snapshot::{
    ADMIN_UPSTREAM, Formula, Guard, IDENTITY_UPSTREAM, MethodKey, Methods, Report, Route, RouteId, Service, Snapshot,
};
use super::source::{MethodItem, PathItem, PolicyFile, ReportOnly, SourceText, Span, Spanned};
use super::yaml::nearest;
use crate::rbac::RoleTable;

/// What a snapshot is compiled from.
#[derive(Debug)]
pub struct CompileInput<'a> {
    /// The policy files.
    pub files: &'a [PolicyFile],
    /// The role table that permissions, roles and tiers must be known to.
    pub roles: Arc<RoleTable>,
    /// The configured upstreams; `None` where they are not known (`policy check` without a configuration).
    pub upstreams: Option<&'a BTreeSet<String>>,
    /// Whether everything is in report mode (`[gateway] mode = "report"`); never for the admin listener (T21).
    pub report: bool,
}

/// Compiles; all faults of all files at once. Warnings may come with a snapshot.
#[must_use]
pub fn compile(input: &CompileInput<'_>) -> (Option<Snapshot>, Diagnostics) {
    let mut compiler = Compiler {
        input,
        found: Diagnostics::default(),
        routes: Vec::new(),
        guards: Vec::new(),
        places: Vec::new(),
        methods: Methods::default(),
        texts: HashMap::new(),
    };
    let paths: Vec<Vec<CompiledPath<'_>>> =
        input.files.iter().zip(0_u32..).map(|(file, number)| compiler.file(file, number)).collect();
    let mut hosts = hosts::compile(input, &paths, &mut compiler.found);
    if !compiler.found.has_errors() {
        looser::warn(&mut compiler, &hosts);
    }
    compiler.found.sort();
    if compiler.found.has_errors() {
        return (None, compiler.found);
    }
    for table in &mut hosts.tables {
        table.settle(&compiler.guards);
    }
    let services: Vec<Service> = input.files.iter().map(|file| service(file, &mut compiler.texts)).collect();
    let cookies: BTreeSet<Arc<str>> = services.iter().filter_map(|service| service.cookie.clone()).collect();
    let snapshot = Snapshot {
        version: next_version(),
        services,
        cookies: cookies.into_iter().collect(),
        routes: compiler.routes,
        guards: compiler.guards,
        roles: Arc::clone(&input.roles),
        hosts,
        methods: compiler.methods,
    };
    (Some(snapshot), compiler.found)
}

fn next_version() -> u64 {
    static VERSION: AtomicU64 = AtomicU64::new(1);
    VERSION.fetch_add(1, Ordering::Relaxed)
}

/// A path of a file with its routes, before it is put into the tables of the file's hosts.
struct CompiledPath<'a> {
    item: &'a PathItem,
    /// `None` if it is faulty, which has been reported.
    pattern: Option<Pattern>,
    methods: Vec<(MethodKey, RouteId)>,
    /// Report mode for a method that is not listed.
    report: Report,
}

struct Compiler<'a> {
    input: &'a CompileInput<'a>,
    found: Diagnostics,
    routes: Vec<Route>,
    guards: Vec<Guard>,
    /// The file and the requirement of each route.
    places: Vec<(u32, Span)>,
    methods: Methods,
    /// Equal texts are kept once.
    texts: Texts,
}

type Texts = HashMap<String, Arc<str>>;

fn intern(texts: &mut Texts, text: &str) -> Arc<str> {
    if let Some(known) = texts.get(text) {
        return Arc::clone(known);
    }
    let text_once: Arc<str> = text.into();
    texts.insert(text.to_owned(), Arc::clone(&text_once));
    text_once
}

impl<'a> Compiler<'a> {
    fn file(&mut self, file: &'a PolicyFile, number: u32) -> Vec<CompiledPath<'a>> {
        self.admin_has_none(file);
        self.cors_carries_a_credential(file);
        if let Some(upstream) = &file.upstream {
            self.known_upstream(&file.source, upstream);
        }
        if let Some(report) = &file.report_only {
            self.report_allowed(file, file.upstream.as_ref(), report);
        }
        let lines = Lines::of(&file.source);
        let name: Arc<str> = intern(&mut self.texts, &file.source.name);
        let mut without_upstream = None;
        let mut paths = Vec::with_capacity(file.paths.len());
        for item in &file.paths {
            let pattern = self.pattern(file, item);
            let written: Arc<str> = item.pattern.value.as_str().into();
            if let Some(report) = &item.report_only {
                self.report_allowed(file, file.upstream.as_ref(), report);
            }
            let mut methods = Vec::with_capacity(item.methods.len());
            for entry in &item.methods {
                let (key, route, guard) = self.method(file, number, item, entry, pattern.as_ref());
                if route.upstream.is_empty() && guard.formula != Formula::Deny {
                    without_upstream = without_upstream.or(Some(entry.method.span));
                }
                let id = RouteId(u32::try_from(self.routes.len()).unwrap_or(u32::MAX));
                let line = lines.line(entry.method.span.start);
                self.routes.push(Route { pattern: Arc::clone(&written), file: Arc::clone(&name), line, ..route });
                self.guards.push(guard);
                self.places.push((number, entry.require.span));
                methods.push((key, id));
            }
            let until = item.report_only.as_ref().or(file.report_only.as_ref());
            let report = self.report(until, file.upstream.as_ref());
            paths.push(CompiledPath { item, pattern, methods, report });
        }
        if let Some(route) = without_upstream {
            let message = "the file has routes that are not `deny`, and no `upstream`";
            let finding = Diagnostic::error(&file.source, file.service.span, "missing-upstream", message)
                .help("Add `upstream: NAME`, with a name under `[upstreams]` in doorward.toml.")
                .related(&file.source, route, "the first such route");
            self.found.push(finding);
        }
        paths
    }

    fn pattern(&mut self, file: &PolicyFile, item: &PathItem) -> Option<Pattern> {
        match Pattern::parse(&item.pattern.value) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let span = within(&file.source, &item.pattern, &error.at);
                self.found.push(Diagnostic::error(&file.source, span, "bad-pattern", error.message).help(error.help));
                None
            }
        }
    }

    fn method(
        &mut self,
        file: &'a PolicyFile,
        number: u32,
        item: &PathItem,
        entry: &MethodItem,
        pattern: Option<&Pattern>,
    ) -> (MethodKey, Route, Guard) {
        let method = entry.method.value.as_str();
        let mut requirements =
            Requirements { roles: &self.input.roles, file, path: &item.pattern.value, pattern, found: &mut self.found };
        let formula = requirements.compile(&entry.require);
        let text = requirement::describe(&entry.require.value);
        if formula == Formula::Public && matches!(method, "POST" | "PUT" | "PATCH" | "DELETE" | "*") {
            let sent = if method == "*" { "POST" } else { method };
            let message = format!("a public route that changes data: anybody may send {sent} {}", item.pattern.value);
            let finding = Diagnostic::warning(&file.source, entry.require.span, "public-changes-data", message);
            self.found.push(finding.help("Require `authenticated` or a permission, unless that is meant."));
        }
        let upstream = entry.upstream.as_ref().or(file.upstream.as_ref());
        if let Some(own) = &entry.upstream {
            self.known_upstream(&file.source, own);
        }
        if let Some(report) = &entry.report_only {
            self.report_allowed(file, upstream, report);
        }
        if let Some(limit) = &entry.rate_limit {
            self.not_on_admin(file, "rate_limit", limit.span);
        }
        let until = entry.report_only.as_ref().or(item.report_only.as_ref()).or(file.report_only.as_ref());
        let report = if formula == Formula::Deny { Report::NEVER } else { self.report(until, upstream) };
        let mut named = Vec::new();
        formula.each_permission(&mut |permission| named.push(permission));
        let permission = match named[..] {
            [one] => Some(one),
            _ => None,
        };
        let code = permission.map(|one| intern(&mut self.texts, self.input.roles.permission_code(one).as_str()));
        let route = Route {
            pattern: Arc::from(""),
            method: intern(&mut self.texts, method),
            service: number,
            upstream: intern(&mut self.texts, upstream.map_or("", |upstream| &upstream.value)),
            requirement: intern(&mut self.texts, &text),
            permission: code,
            timeout: entry.timeout,
            body: entry.body,
            audit: entry.audit,
            outlives_token: entry.outlives_token.as_ref().is_some_and(|outlives| outlives.value),
            cache: entry.cache,
            rate_limit: entry.rate_limit.as_ref().or(file.rate_limit.as_ref()).map(|limit| limit.value),
            file: Arc::from(""),
            line: 0,
        };
        (self.methods.intern(method), route, Guard { formula, service: number, report, permission })
    }

    /// Report mode of a route; never for the identity listener (T21).
    fn report(&self, until: Option<&Spanned<ReportOnly>>, upstream: Option<&Spanned<String>>) -> Report {
        if upstream.is_none_or(|upstream| upstream.value == IDENTITY_UPSTREAM) {
            return Report::NEVER;
        }
        if self.input.report {
            return Report::ALWAYS;
        }
        until.map_or(Report::NEVER, |report| Report(report.value.until))
    }

    fn report_allowed(&mut self, file: &PolicyFile, upstream: Option<&Spanned<String>>, report: &Spanned<ReportOnly>) {
        if upstream.is_some_and(|upstream| upstream.value == IDENTITY_UPSTREAM) {
            let message = format!("`{IDENTITY_UPSTREAM}` cannot be in report mode, which would let everybody in");
            let finding = Diagnostic::error(&file.source, report.span, "report-only-identity", message);
            self.found.push(finding.help("Leave `report_only` out."));
        }
    }

    fn known_upstream(&mut self, source: &Arc<SourceText>, upstream: &Spanned<String>) {
        let Some(known) = self.input.upstreams.filter(|known| !known.contains(&upstream.value)) else { return };
        let message = format!("there is no upstream `{}`", upstream.value);
        let finding = Diagnostic::error(source, upstream.span, "unknown-upstream", message);
        let mend = match closest(&upstream.value, known.iter().map(String::as_str)) {
            Some(name) => format!("Did you mean `{name}`?"),
            None => format!("Add `[upstreams.{}]` to doorward.toml.", upstream.value),
        };
        self.found.push(finding.help(mend));
    }

    /// What the gateway carries out and the admin listener does not is refused there: it counts nothing, answers no other
    /// site, and takes tokens from `Authorization` alone (T30).
    fn admin_has_none(&mut self, file: &PolicyFile) {
        let keys = [
            ("rate_limit", file.rate_limit.as_ref().map(|limit| limit.span)),
            ("cors", file.cors.as_ref().map(|cors| cors.span)),
            ("credentials", file.credentials.as_ref().map(|credentials| credentials.span)),
        ];
        for (key, span) in keys {
            if let Some(span) = span {
                self.not_on_admin(file, key, span);
            }
        }
    }

    /// A page that may neither send a token nor has a cookie to be sent can ask for what is public only.
    fn cors_carries_a_credential(&mut self, file: &PolicyFile) {
        let Some(cors) = file.cors.as_ref().filter(|_| file.credentials.is_none()) else { return };
        let headers = &cors.value.headers;
        if !headers.is_empty() && !headers.iter().any(|header| header == "*" || header == "authorization") {
            let message = "`headers` of `cors` lists what pages may send, and `Authorization` is not in it";
            let finding = Diagnostic::warning(&file.source, cors.span, "cors-without-authorization", message);
            self.found.push(finding.help("Add `Authorization`, unless pages ask for what is public only."));
        }
    }

    fn not_on_admin(&mut self, file: &PolicyFile, key: &str, span: Span) {
        if file.upstream.as_ref().is_some_and(|upstream| upstream.value == ADMIN_UPSTREAM) {
            let message = format!("`{key}` is not supported on the admin listener");
            let finding = Diagnostic::error(&file.source, span, "not-yet-supported", message);
            self.found.push(finding.help(format!("Leave `{key}` out.")));
        }
    }
}

fn service(file: &PolicyFile, texts: &mut Texts) -> Service {
    let sha256 = digest(&SHA256, file.source.text.as_bytes());
    let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Service {
        name: intern(texts, file.service.value.as_str()),
        upstream: file.upstream.as_ref().map(|upstream| intern(texts, &upstream.value)),
        file: intern(texts, &file.source.name),
        sha256: sha256.into(),
        forward_authorization: file.forward_authorization,
        strip: file.strip.iter().map(|header| header.value.to_ascii_lowercase().into()).collect(),
        hosts: file
            .hosts
            .iter()
            .filter_map(|host| match &host.value {
                super::source::HostPattern::Exact(host) => Some(host.as_str().into()),
                super::source::HostPattern::Wildcard(_) => None,
            })
            .collect(),
        cors: file.cors.as_ref().map(|cors| Arc::new(cors.value.clone())),
        cookie: file.credentials.as_ref().map(|credentials| intern(texts, &credentials.value.cookie)),
    }
}

/// The known word that was probably meant.
fn closest<'w>(written: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    nearest(written, &known.collect::<Vec<_>>())
}

/// A part of a value in its file: exact where the value stands there as it is, plain or in quotes.
fn within(source: &SourceText, value: &Spanned<String>, part: &std::ops::Range<usize>) -> Span {
    let written = source.text.get(value.span.start..value.span.end).unwrap_or_default();
    match written.find(&value.value) {
        Some(from) if from <= 1 && !part.is_empty() => {
            Span { start: value.span.start + from + part.start, end: value.span.start + from + part.end }
        }
        _ => value.span,
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(source: &SourceText) -> Self {
        Self(memchr::memchr_iter(b'\n', source.text.as_bytes()).collect())
    }

    /// The line of an offset, from 1.
    fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|newline| *newline < offset)).map_or(u32::MAX, |before| before + 1)
    }
}

#[cfg(test)]
mod tests;
