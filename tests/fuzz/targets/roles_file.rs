//! A roles file: any text is read and reported on without a panic.
#![no_main]

use std::sync::Arc;

use doorward::policy::{SourceText, roles_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (table, findings) = roles_file::parse(Arc::new(SourceText { name: "roles.yaml".into(), text: text.into() }));
    let _ = (findings.render(false), findings.to_json());
    assert!(table.is_some() || findings.has_errors(), "no table and no reason");
});
