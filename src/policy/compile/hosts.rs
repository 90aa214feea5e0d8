//! Files are gathered by host and merged into one table for each set of files.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{CompileInput, CompiledPath, within};
use crate::policy::diagnostic::{Diagnostic, Diagnostics};
use crate::policy::index::{PathIndex, ShapeId};
use crate::policy::pattern::{Keep, Segment};
use crate::policy::snapshot::{HostTable, Hosts, IDENTITY_UPSTREAM, Report, Shape};
use crate::policy::source::{HostPattern, Unmatched};
use crate::request::PathRules;
use crate::request::target::{Case, TrailingSlash};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Any,
    Exact(String),
    Wildcard(String),
}

/// The tables of all hosts. Hosts with the same files share one.
pub(super) fn compile(input: &CompileInput<'_>, paths: &[Vec<CompiledPath<'_>>], found: &mut Diagnostics) -> Hosts {
    let mut files_of: BTreeMap<Key, BTreeSet<usize>> = BTreeMap::new();
    for (number, file) in input.files.iter().enumerate() {
        let keys: Vec<Key> = if file.hosts.is_empty() {
            vec![Key::Any]
        } else {
            file.hosts
                .iter()
                .map(|host| match &host.value {
                    HostPattern::Exact(name) => Key::Exact(name.clone()),
                    HostPattern::Wildcard(suffix) => Key::Wildcard(suffix.clone()),
                })
                .collect()
        };
        for key in keys {
            files_of.entry(key).or_default().insert(number);
        }
    }
    let mut hosts = Hosts::default();
    let mut made: HashMap<BTreeSet<usize>, u32> = HashMap::new();
    let mut reported = BTreeSet::new();
    for (key, files) in files_of {
        let table = match made.get(&files) {
            Some(table) => *table,
            None => {
                let number = u32::try_from(hosts.tables.len()).unwrap_or(u32::MAX);
                let merge = Merge { input, paths, files: files.iter().copied().collect() };
                let mut findings = Diagnostics::default();
                hosts.tables.push(merge.table(&mut findings));
                // Two hosts may show one fault twice.
                for finding in findings.0 {
                    if reported.insert((
                        finding.source.name.clone(),
                        finding.span.start,
                        finding.span.end,
                        finding.code,
                    )) {
                        found.push(finding);
                    }
                }
                made.insert(files, number);
                number
            }
        };
        match key {
            Key::Any => hosts.any = Some(table),
            Key::Exact(name) => {
                hosts.exact.insert(name.into(), table);
            }
            Key::Wildcard(suffix) => {
                hosts.longest_wildcard = hosts.longest_wildcard.max(suffix.len());
                hosts.wildcard.insert(suffix.into(), table);
            }
        }
    }
    hosts
}

/// The files of one host.
struct Merge<'m, 'a> {
    input: &'m CompileInput<'m>,
    paths: &'m [Vec<CompiledPath<'a>>],
    files: Vec<usize>,
}

/// A path of one of the files: both numbers.
type Place = (usize, usize);

impl Merge<'_, '_> {
    fn table(&self, found: &mut Diagnostics) -> HostTable {
        let rules = self.rules(found);
        let mut index = PathIndex::new(rules.case == Case::Insensitive);
        let mut shapes: Vec<Shape> = Vec::new();
        let mut places: Vec<(ShapeId, Vec<Place>)> = Vec::new();
        for &file in &self.files {
            for (number, path) in self.paths[file].iter().enumerate() {
                let Some(pattern) = &path.pattern else { continue };
                if let Some((keep, at)) = pattern.unmet(&rules) {
                    let key = match keep {
                        Keep::Slash => "encoded_slash",
                        Keep::Reserved => "encoded_reserved",
                    };
                    let source = &self.input.files[file].source;
                    let message = "an encoded delimiter, which this host refuses in requests";
                    let finding =
                        Diagnostic::error(source, within(source, &path.item.pattern, &at), "bad-pattern", message);
                    found.push(finding.help(format!(
                        "Write the path without it, or add `path: {{{key}: keep}}` if the service needs it."
                    )));
                    continue;
                }
                let segments = matched_segments(&pattern.segments, &rules);
                let next = u32::try_from(shapes.len()).unwrap_or(u32::MAX);
                let (shape, value) = index.insert(segments, next);
                if value == next {
                    shapes.push(Shape { service: u32::try_from(file).unwrap_or(u32::MAX), ..Shape::default() });
                    places.push((shape, Vec::new()));
                }
                let (shape, (_, so_far)) = (&mut shapes[value as usize], &mut places[value as usize]);
                let twin = so_far.iter().copied().find(|twin| self.collide(*twin, (file, number)));
                if let Some(twin) = twin {
                    found.push(self.same_path(twin, (file, number), &index.example_of(places[value as usize].0)));
                    continue;
                }
                so_far.push((file, number));
                shape.methods.extend(path.methods.iter().copied());
                // Paths that are merged report together or not at all.
                shape.report = Some(shape.report.map_or(path.report, |report| report.min(path.report)));
            }
        }
        let place_of: HashMap<ShapeId, Place> =
            places.iter().filter_map(|(shape, places)| Some((*shape, *places.first()?))).collect();
        for tie in index.ties() {
            if let (Some(left), Some(right)) = (place_of.get(&tie.left), place_of.get(&tie.right)) {
                found.push(self.tie(*left, *right, &tie.witness));
            }
        }
        let one = if let [one] = self.files[..] { Some(&self.input.files[one]) } else { None };
        let agreed = |answer: Unmatched| self.files.iter().all(|file| self.input.files[*file].unmatched == answer);
        let name = |file: usize| &self.input.files[file].service.value;
        let first = self.files.first().copied();
        HostTable {
            index,
            rules,
            shapes,
            // Laid out when all files are known to be sound.
            routes: Vec::new(),
            answers: Vec::new(),
            service: first
                .filter(|first| self.files.iter().all(|file| name(*file) == name(*first)))
                .and_then(|file| u32::try_from(file).ok()),
            unmatched: if agreed(Unmatched::NotFound) { 404 } else { 403 },
            report: match one.and_then(|file| Some((file, file.upstream.as_ref()?))) {
                Some((_, upstream)) if upstream.value == IDENTITY_UPSTREAM => Report::NEVER,
                Some(_) if self.input.report => Report::ALWAYS,
                Some((file, _)) => file.report_only.as_ref().map_or(Report::NEVER, |report| Report(report.value.until)),
                None => Report::NEVER,
            },
            cors: self.cors(),
        }
    }

    /// The file whose `cors:` counts where no path matches. What files of one host say differently holds for their own paths.
    fn cors(&self) -> Option<u32> {
        let block = |file: usize| self.input.files[file].cors.as_ref().map(|cors| &cors.value);
        let mut having = self.files.iter().copied().filter(|file| block(*file).is_some());
        let first = having.next()?;
        having.all(|other| block(other) == block(first)).then(|| u32::try_from(first).ok()).flatten()
    }

    /// `path:` belongs to the host, so files that have one must agree.
    fn rules(&self, found: &mut Diagnostics) -> PathRules {
        let mut blocks = self.files.iter().filter_map(|file| {
            let file = &self.input.files[*file];
            file.path_rules.as_ref().map(|rules| (file, rules))
        });
        let Some((first_file, first)) = blocks.next() else { return PathRules::default() };
        for (file, rules) in blocks.filter(|(_, rules)| rules.value != first.value) {
            let message = "two files of one host disagree in `path:`, which belongs to the host";
            let finding = Diagnostic::error(&file.source, rules.span, "path-conflict", message)
                .help("Write the same block in both, or in one of them only.")
                .related(&first_file.source, first.span, "the other block");
            found.push(finding);
        }
        first.value
    }

    /// Paths of one shape can be merged if they are of one file and no method is in both.
    fn collide(&self, (left_file, left): Place, (right_file, right): Place) -> bool {
        let methods = |file: usize, path: usize| self.paths[file][path].methods.iter().map(|(method, _)| *method);
        left_file != right_file
            || methods(left_file, left).any(|method| methods(right_file, right).any(|other| other == method))
    }

    fn same_path(&self, left: Place, right: Place, example: &str) -> Diagnostic {
        let (left_file, right_file) = (&self.input.files[left.0], &self.input.files[right.0]);
        let (left_item, right_item) = (self.paths[left.0][left.1].item, self.paths[right.0][right.1].item);
        let request = format!("{} {example}", self.method_for(left, right));
        let (a, b) = (&left_item.pattern.value, &right_item.pattern.value);
        let finding = if left.0 == right.0 {
            let message = format!("`{b}` and `{a}` cannot be told apart: `{request}` matches both");
            Diagnostic::error(&right_file.source, right_item.pattern.span, "same-path", message)
                .help("Put the methods under one of them.")
        } else {
            let (left, right) = (&left_file.source.name, &right_file.source.name);
            let message = format!("`{b}` is in two files of one host, {left} and {right}: `{request}` matches both");
            Diagnostic::error(&right_file.source, right_item.pattern.span, "same-path", message)
                .help("Keep the path in one file, or give the files different `hosts`.")
        };
        finding.related(&left_file.source, left_item.pattern.span, "the other one")
    }

    fn tie(&self, left: Place, right: Place, witness: &str) -> Diagnostic {
        let (left_file, right_file) = (&self.input.files[left.0], &self.input.files[right.0]);
        let (left_item, right_item) = (self.paths[left.0][left.1].item, self.paths[right.0][right.1].item);
        let (a, b) = (&left_item.pattern.value, &right_item.pattern.value);
        let method = self.method_for(left, right);
        let message = format!("nothing puts `{b}` and `{a}` in order: `{method} {witness}` matches both");
        Diagnostic::error(&right_file.source, right_item.pattern.span, "tie", message)
            .help("Give one of them more literal text, or make both one path.")
            .related(&left_file.source, left_item.pattern.span, "the other one")
    }

    /// A method that both paths list, else one that either does.
    fn method_for(&self, left: Place, right: Place) -> &str {
        let methods =
            |(file, path): Place| self.paths[file][path].item.methods.iter().map(|item| item.method.value.as_str());
        let both =
            methods(left).find(|method| *method != "*" && methods(right).any(|other| other == *method || other == "*"));
        both.or_else(|| methods(right).find(|method| *method != "*"))
            .or_else(|| methods(left).find(|method| *method != "*"))
            .unwrap_or("GET")
    }
}

/// Where a trailing slash is ignored, requests are matched without it, and so are patterns kept.
fn matched_segments<'p>(segments: &'p [Segment], rules: &PathRules) -> &'p [Segment] {
    match segments {
        [more @ .., Segment::Literal(last)]
            if rules.trailing_slash == TrailingSlash::Same && last.is_empty() && !more.is_empty() =>
        {
            more
        }
        all => all,
    }
}
