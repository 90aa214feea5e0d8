//! Each file of `tests/policy/broken/` and what is said about it. Read a new snapshot as somebody who has no documentation at hand.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

use super::super::roles_file;
use super::*;

#[test]
fn broken_files_name_the_place_and_the_mend() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/broken");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);

    let mut count = 0;
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("the broken files").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
        let text = if is_yaml { std::fs::read_to_string(&path).unwrap() } else { continue };
        let source = Arc::new(SourceText { name: format!("{name}.yaml"), text });
        let out = match name.split('-').next() {
            Some("policy") => PolicyFile::parse(source).1,
            Some("roles") => roles_file::parse(source).1,
            // Files of the compiler's own tests.
            _ => continue,
        };
        assert!(out.has_errors(), "{name} is not broken");
        assert!(out.0.iter().all(|finding| finding.help.is_some()), "{name} has a finding without a mend");
        settings.bind(|| insta::assert_snapshot!(name.as_str(), out.render(false)));
        count += 1;
    }
    assert!(count >= 25, "only {count} broken files");
}
