//! A policy file: any text is read, compiled and reported on without a panic, and every finding has a place in it.
#![no_main]

use std::sync::{Arc, LazyLock};

use doorward::policy::{CompileInput, PolicyFile, SourceText, compile, roles_file};
use doorward::rbac::RoleTable;
use libfuzzer_sys::fuzz_target;

static ROLES: LazyLock<Arc<RoleTable>> = LazyLock::new(|| {
    let text = "version: 1\npermissions: {oms: [a:b, a:c]}\nroles: {ROLE_USER: {permissions: [a:b]}}\n\
                tiers: {oms: [{key: FREE, permissions: []}, {key: PREMIUM, permissions: [a:c]}]}\n";
    let source = Arc::new(SourceText { name: "roles.yaml".into(), text: text.into() });
    let (data, findings) = roles_file::parse(source);
    Arc::new(data.unwrap_or_else(|| panic!("{}", findings.render(false))).1)
});

fuzz_target!(|text: &str| {
    let source = Arc::new(SourceText { name: "policy.yaml".into(), text: text.into() });
    let (file, findings) = PolicyFile::parse(Arc::clone(&source));
    let _ = (findings.render(false), findings.to_json());
    let Some(file) = file else {
        assert!(findings.has_errors(), "no file and no reason");
        return;
    };
    let input = CompileInput { files: &[file], roles: Arc::clone(&ROLES), upstreams: None, report: false };
    let (snapshot, findings) = compile(&input);
    let _ = (findings.render(true), findings.to_json());
    assert!(snapshot.is_some() || findings.has_errors(), "no snapshot and no reason");
});
