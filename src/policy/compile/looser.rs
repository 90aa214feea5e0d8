//! A catch-all that is looser than a path it lies around (SPEC 10).
//!
//! `/admin/{rest...}: public` beside `/admin/users: user:view` guards the list of users and opens `/admin/users/7`, which is seldom
//! meant. The proof is a request: one segment below the stricter path, decided by the looser one. Where another route
//! decides it, or where neither requirement follows from the other, nothing is said.

use std::collections::BTreeMap;

use super::Compiler;
use crate::policy::diagnostic::Diagnostic;
use crate::policy::snapshot::{Formula, Guard, HostTable, Hosts, Methods, RouteId, Shape};
use crate::rbac::RoleTable;
use crate::request::target::clean;

/// Asked about for paths that name no method (`"*"`), and beside those that are named.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What shows that one route is looser than a path below which it decides.
struct Proof {
    method: String,
    child: RouteId,
    /// A request that only the child was probably meant to decide.
    target: String,
    /// How many further paths lie below the same route in the same way.
    more: usize,
}

/// Warns of every such route once, at its requirement.
pub(super) fn warn(compiler: &mut Compiler<'_>, hosts: &Hosts) {
    let mut proofs: BTreeMap<RouteId, Proof> = BTreeMap::new();
    for table in &hosts.tables {
        for (parent, proof) in proofs_of(table, compiler) {
            proofs.entry(parent).and_modify(|known| known.more += 1).or_insert(proof);
        }
    }
    for (parent, proof) in proofs {
        let words = |id: RouteId| {
            let route = &compiler.routes[id.0 as usize];
            (route.pattern.clone(), route.requirement.clone())
        };
        let ((path, loose), (below, strict)) = (words(parent), words(proof.child));
        let Proof { method, child, target, more } = proof;
        let message = format!(
            "a parent looser than its child: `{method} {below}` asks for {strict}, and `{method} {target}` only for {loose}, by `{path}`"
        );
        let also = match more {
            0 => String::new(),
            1 => " The same is true of one more path.".to_owned(),
            more => format!(" The same is true of {more} more paths."),
        };
        let ((file, span), (child_file, child_span)) =
            (compiler.places[parent.0 as usize], compiler.places[child.0 as usize]);
        let files = compiler.input.files;
        let finding = Diagnostic::warning(&files[file as usize].source, span, "looser-parent", message)
            .help(format!(
                "List what lies below, such as `{}/{{rest...}}`, or ask for as much here.{also}",
                below.trim_end_matches('/')
            ))
            .related(&files[child_file as usize].source, child_span, "the stricter path");
        compiler.found.push(finding);
    }
}

fn proofs_of(table: &HostTable, compiler: &Compiler<'_>) -> Vec<(RouteId, Proof)> {
    let (index, mut proofs) = (&table.index, Vec::new());
    for (shape, value) in index.shapes() {
        let example = index.example_of(shape);
        // What ends in `{rest...}` covers what lies below it, and what ends in a slash is no directory's name.
        if index.ends_in_rest(shape) || example.ends_with('/') {
            continue;
        }
        let target = format!("{example}/x");
        let Ok(cleaned) = clean(&target, &table.rules) else { continue };
        let Some(parent) = index.find(cleaned.match_path()) else { continue };
        // A catch-all that begins below the path belongs to it and is no parent.
        if !index.ends_in_rest(parent) || index.depth(parent) > index.depth(shape) {
            continue;
        }
        let shapes = (table.shapes.get(value as usize), table.shapes.get(index.value(parent) as usize));
        let (Some(child), Some(parent)) = shapes else { continue };
        if let Some((method, child, parent)) = looser_method(child, parent, compiler) {
            proofs.push((parent, Proof { method, child, target, more: 0 }));
        }
    }
    proofs
}

/// The first method for which `parent` is strictly looser.
fn looser_method(child: &Shape, parent: &Shape, compiler: &Compiler<'_>) -> Option<(String, RouteId, RouteId)> {
    let methods: &Methods = &compiler.methods;
    let named = child.methods.iter().map(|(method, _)| methods.name(*method)).filter(|name| *name != "*");
    named.chain(METHODS).find_map(|method| {
        let key = methods.key(method);
        let (strict, loose) = (child.route(key)?, parent.route(key)?);
        let guard = |id: RouteId| -> &Guard { &compiler.guards[id.0 as usize] };
        let (strict_guard, loose_guard) = (guard(strict), guard(loose));
        // A permission in one service need not be that of another.
        let comparable = strict_guard.service == loose_guard.service
            || matches!(loose_guard.formula, Formula::Public | Formula::Authenticated);
        let roles = &compiler.input.roles;
        let looser = comparable
            && implies(&strict_guard.formula, &loose_guard.formula, roles)
            && !implies(&loose_guard.formula, &strict_guard.formula, roles);
        looser.then(|| (method.to_owned(), strict, loose))
    })
}

/// Whether everybody who meets `strict` meets `loose`, as far as the formulas alone show it: never yes where it is not so.
fn implies(strict: &Formula, loose: &Formula, roles: &RoleTable) -> bool {
    match (strict, loose) {
        (Formula::Deny, _) | (_, Formula::Public) => true,
        (Formula::Public, _) | (_, Formula::Deny) => false,
        (_, Formula::Authenticated) => true,
        (Formula::Any(parts), _) => parts.iter().all(|part| implies(part, loose, roles)),
        (_, Formula::All(parts)) => parts.iter().all(|part| implies(strict, part, roles)),
        (Formula::All(parts), _) if parts.iter().any(|part| implies(part, loose, roles)) => true,
        (_, Formula::Any(parts)) => parts.iter().any(|part| implies(strict, part, roles)),
        (Formula::Membership(service, rank), Formula::Membership(other, least)) => service == other && rank >= least,
        (Formula::Role(role), Formula::Role(ancestor)) => {
            std::iter::successors(Some(*role), |role| roles.parent(*role)).any(|role| role == *ancestor)
        }
        (Formula::Client(narrow), Formula::Client(wide)) => {
            narrow.iter().all(|network| wide.iter().any(|wider| wider.contains(network)))
        }
        (strict, loose) => strict == loose,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

    use crate::policy::testing::{compile_texts, outcome, snapshot};

    fn warnings(paths: &str) -> Vec<String> {
        let text = format!("version: 1\nservice: oms\nupstream: oms\npaths:\n{paths}");
        let (compiled, found) = compile_texts(&[("oms.yaml", &text)], false);
        assert!(compiled.is_some(), "{}", found.render(false));
        let looser = found.0.into_iter().filter(|finding| finding.code == "looser-parent");
        looser.map(|finding| format!("{} {}", finding.message, finding.help.unwrap())).collect()
    }

    #[test]
    fn a_catch_all_looser_than_a_path_within_it_is_proved_by_a_request() {
        let paths = "  /admin/{rest...}: { get: public }\n  /admin/users: { get: order:view }\n";
        let [warning] = &warnings(paths)[..] else { unreachable!("one warning") };
        assert_eq!(
            warning,
            "a parent looser than its child: `GET /admin/users` asks for order:view, and `GET /admin/users/x` only for public, \
             by `/admin/{rest...}` List what lies below, such as `/admin/users/{rest...}`, or ask for as much here."
        );
        let proved = snapshot(&format!("paths:\n{paths}"));
        assert_eq!(outcome(&proved, "-", "GET /admin/users/x"), "allow");
        assert_eq!(outcome(&proved, "-", "GET /admin/users"), "missing_token");
    }

    #[test]
    fn each_looser_route_is_named_once() {
        let warned = warnings(
            "  /a/{rest...}: { get: authenticated, post: order:view }\n  /a/b: { get: order:view }\n  /a/c/{id}: { '*': deny }\n\
             \x20 /a/d: { post: { all: [order:view, order:edit] } }\n",
        );
        assert_eq!(warned.len(), 2, "{warned:#?}");
        assert!(warned[0].contains("GET /a/b/x") && warned[0].ends_with("of one more path."), "{warned:#?}");
        assert!(warned[1].contains("POST /a/d/x") && warned[1].contains("only for order:view"), "{warned:#?}");
    }

    #[test]
    fn nothing_is_said_where_nothing_is_proved() {
        for (paths, why) in [
            ("  /a/{rest...}: { get: order:view }\n  /a/b: { get: order:edit }\n", "neither follows from the other"),
            ("  /a/{rest...}: { get: order:view }\n  /a/b: { get: order:view }\n", "the same"),
            ("  /a/{rest...}: { get: order:view }\n  /a/b: { get: authenticated }\n", "stricter"),
            ("  /a/{rest...}: { post: public }\n  /a/b: { get: order:view }\n", "another method"),
            ("  /a: { get: public }\n  /a/b: { get: order:view }\n", "no catch-all"),
            ("  /a/b/{rest...}: { get: public }\n  /a/b: { get: order:view }\n", "its own catch-all"),
            ("  /{rest...}: { get: public }\n  /a/{rest...}: { get: order:view }\n", "a site and its guarded part"),
            ("  /{rest...}: { get: public }\n  /: { get: order:view }\n", "a slash at the end"),
            (
                "  /{rest...}: { get: public }\n  /a: { get: order:view }\n  /a/{rest...}: { get: order:view }\n",
                "what lies below is listed",
            ),
        ] {
            assert_eq!(warnings(paths), [""; 0], "{why}");
        }
    }

    #[test]
    fn requirements_are_compared_by_what_they_mean() {
        for (strict, loose) in [
            ("deny", "order:view"),
            ("order:view", "{ any: [order:edit, order:view] }"),
            ("{ all: [order:view, { role: ROLE_EDITOR }] }", "{ any: [{ role: ROLE_VIEWER }, order:delete] }"),
            ("{ any: [order:view, order:edit] }", "{ any: [order:view, order:edit, order:delete] }"),
            ("{ membership: oms >= PREMIUM }", "{ membership: oms >= FREE }"),
            ("{ client: [10.1.0.0/16] }", "{ client: [10.0.0.0/8, 192.0.2.0/24] }"),
        ] {
            let of = |parent: &str, child: &str| {
                warnings(&format!("  /a/{{rest...}}: {{ get: {parent} }}\n  /a/b: {{ get: {child} }}\n")).len()
            };
            assert_eq!((of(loose, strict), of(strict, loose)), (1, 0), "{loose} is looser than {strict}");
        }
    }
}
