#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Option<Node>, Diagnostics, Arc<SourceText>) {
    let source = Arc::new(SourceText { name: "t.yaml".into(), text: text.into() });
    let mut out = Diagnostics::default();
    let node = parse(&source, &mut out);
    (node, out, source)
}

fn codes(text: &str) -> Vec<&'static str> {
    read(text).1.0.iter().map(|finding| finding.code).collect()
}

/// The text of every scalar with what its span covers.
fn spans(node: &Node, source: &str, found: &mut Vec<(String, String)>) {
    let covered = source[node.span.start..node.span.end].to_owned();
    match &node.kind {
        Kind::Scalar { text, .. } => found.push((text.clone(), covered)),
        Kind::Refused => {}
        Kind::List(items) => items.iter().for_each(|item| spans(item, source, found)),
        Kind::Map(entries) => {
            for entry in entries {
                found.push((entry.key.value.clone(), source[entry.key.span.start..entry.key.span.end].to_owned()));
                spans(&entry.value, source, found);
            }
        }
    }
}

#[test]
fn spans_cover_what_was_written_in_any_script_and_line_ending() {
    let text =
        "\u{feff}# 🐴 žluťoučký kůň\r\nklíč: hodnota # 🐴\r\nb: [\"dvě 🐴\", tři]\r\n'c': {d: e}\n# é\nf:\n  - g  \n";
    let (node, out, source) = read(text);
    assert!(out.0.is_empty());
    let mut found = Vec::new();
    spans(&node.unwrap(), &source.text, &mut found);
    let pairs: Vec<_> = found.iter().map(|(text, covered)| (text.as_str(), covered.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("klíč", "klíč"),
            ("hodnota", "hodnota"),
            ("b", "b"),
            ("dvě 🐴", "\"dvě 🐴\""),
            ("tři", "tři"),
            ("c", "'c'"),
            ("d", "d"),
            ("e", "e"),
            ("f", "f"),
            ("g", "g"),
        ]
    );
}

#[test]
fn duplicate_keys_are_refused_however_they_are_quoted() {
    let (_, out, source) = read("a: 1\n\"a\": 2\nb: {c: 1, c: 2}\n");
    assert_eq!(out.0.len(), 2);
    assert_eq!(source.line_column(out.0[0].span.start), (2, 1));
    assert_eq!(source.line_column(out.0[0].related.as_ref().unwrap().1.start), (1, 1));
    assert_eq!(source.line_column(out.0[1].span.start), (3, 11));
}

#[test]
fn what_could_be_overlooked_is_refused() {
    assert_eq!(codes("a: &x 1\nb: *x\n"), ["anchor", "alias"]);
    assert_eq!(codes("a: !!str 1\n"), ["tag"]);
    assert_eq!(codes("a: !mine {}\n"), ["tag"]);
    assert_eq!(codes("a: 1\n---\nb: 2\n"), ["second-document"]);
    assert_eq!(codes("{a: 1}: b\n"), ["key-no-text"]);
    assert_eq!(codes("? [a]\n: b\n"), ["key-no-text"]);
    assert_eq!(codes("<<: *x\n"), ["yaml-syntax"]);
    assert_eq!(codes(&format!("{}{}", "[".repeat(70), "]".repeat(70))), ["too-deep"]);
    assert_eq!(codes(&format!("{}a{}", "[".repeat(60), "]".repeat(60))), [""; 0]);
    assert_eq!(codes(&"#".repeat(LARGEST + 1)), ["file-too-large"]);
}

#[test]
fn one_long_line_is_read_in_linear_time() {
    let text = format!("[{}]", "é, ".repeat(300_000));
    let (node, out, _) = read(&text);
    assert!(out.0.is_empty());
    assert!(matches!(node.unwrap().kind, Kind::List(items) if items.len() == 300_000));
}

#[test]
fn numbers_and_dates_stay_text() {
    let (node, ..) = read("a: 1.10\nb: 2027-01-31\nc: on\nd: ~\ne:\n");
    let Kind::Map(entries) = node.unwrap().kind else { panic!("no mapping") };
    let kinds: Vec<_> =
        entries.iter().map(|entry| (format!("{:?}", entry.value.kind), entry.value.is_nothing())).collect();
    assert!(kinds[0].0.contains("\"1.10\"") && kinds[1].0.contains("\"2027-01-31\"") && kinds[2].0.contains("\"on\""));
    assert!(kinds[3].1 && kinds[4].1 && !kinds[2].1);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_at_a_place_within_it(text in "([a-c:{}\\[\\],\"'*&!|>#%@`é \t\n-]|\r\n){0,60}") {
        let (node, out, source) = read(&text);
        prop_assert!(node.is_some() || out.has_errors() || text.lines().all(|line| {
            let line = line.trim(); line.is_empty() || line.starts_with(['#', '-', '%'])
        }), "{:?}", text);
        for finding in &out.0 {
            prop_assert!(finding.span.start <= finding.span.end && finding.span.end <= source.text.len());
        }
        let _ = out.render(false);
        if let Some(node) = node {
            spans(&node, &source.text, &mut Vec::new());
        }
    }
}
