//! Tables of configurations: what is read, and what is said of every mistake.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::settings::{KeySource, Settings};
use super::{sources, validate};
use crate::gateway::upstream::Address;
use crate::secret::Secret;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/doorward.toml");
const SECRET: &str = "12345678901234567890123456789012";

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
}

/// Loads a text as `doorward.toml`: the settings shown with their warnings, or the mistakes, places made stable.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<(Settings, String), String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("doorward.toml");
    std::fs::write(&file, text).unwrap();
    let shorten = |text: String| text.replace(&file.display().to_string(), "doorward.toml");
    match Settings::load(Some(&file), env(variables)) {
        Ok((settings, warnings)) => {
            let mut lines = String::new();
            for warning in warnings {
                writeln!(lines, "{warning}").unwrap();
            }
            Ok((settings, lines))
        }
        Err(error) => Err(shorten(error.to_string())),
    }
}

fn mistakes(text: &str, variables: &[(&str, &str)]) -> String {
    match load(text, variables) {
        Ok(_) => panic!("this should not load:\n{text}"),
        Err(mistakes) => mistakes,
    }
}

fn good(text: &str, variables: &[(&str, &str)]) -> Settings {
    load(text, variables).unwrap().0
}

/// Names and values.
type Variables = &'static [(&'static str, &'static str)];

const FOREIGN: &str = r#"
[[auth.issuers]]
name = "kc"
issuer = "https://sso.example.com"
audience = ["oms"]
keys = "jwks+file://kc.json"
"#;

fn foreign(more: &str) -> String {
    format!("{FOREIGN}{more}\n")
}

#[test]
fn the_shipped_file_loads_without_a_warning_and_is_what_the_specification_says() {
    let (settings, warnings) = Settings::load(Some(Path::new(SHIPPED)), env(&[])).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(settings.gateway.listen.to_string(), "0.0.0.0:8090");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:8091");
    assert_eq!(settings.upstreams["oms"].endpoints[0].authority, "127.0.0.1:8000");
    assert_eq!(settings.auth.issuers[0].keys, KeySource::Local);
}

#[test]
fn the_shipped_file_says_nothing_else_than_the_built_in_defaults_but_for_upstream_and_issuer() {
    let (mut shipped, _) = Settings::load(Some(Path::new(SHIPPED)), env(&[])).unwrap();
    let mut defaults = good("", &[]);
    assert!(defaults.upstreams.is_empty() && defaults.auth.issuers.is_empty());
    shipped.upstreams.clear();
    shipped.auth.issuers.clear();
    (shipped.source, defaults.source) = (None, None);
    assert_eq!(shipped, defaults);
}

#[test]
fn every_key_stands_in_the_shipped_file() {
    // Foreign and own issuer, upstream and all sections, so that every key is asked for.
    let tree = sources::read(Some(Path::new(SHIPPED)), env(&[])).unwrap();
    let (_, _, _, asked) = validate::everything(&tree);
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    let missing: Vec<_> = asked
        .iter()
        .filter(|path| {
            let key = path.rsplit('.').next().unwrap();
            let section = format!("{path}]");
            !text.contains(&format!("{key} = "))
                && !text.contains(&format!("[{section}"))
                && !text.contains(&format!("[{key}"))
        })
        .collect();
    assert!(missing.is_empty(), "not in config/doorward.toml: {missing:?}");
    assert!(asked.len() > 60, "{}", asked.len());
}

#[test]
fn what_is_shown_reads_back_and_hides_secrets() {
    let text = foreign("subject_prefix = \"kc:\"\nconfers = { viewer = \"ROLE_USER\" }");
    let text = format!(
        "{text}[upstreams.a]\nendpoints = [\"http://[::1]:81/\", \"http://b\"]\n\
        [upstreams.b]\nendpoints = [\"https://b\", \"h2c://b:1\", \"unix:/b\"]\nhealth = {{ path = \"/ok?a\", healthy = 1 }}\n\
        tls = {{ ca = \"ca.pem\", cert = \"a.pem\", key = \"b.pem\", server_name = \"b.test\" }}\n\
        limits = {{ requests = 5, waiting = 0 }}\nejection = {{ server_errors = true, max = \"1m\" }}\n"
    );
    let (shipped, _) = Settings::load(Some(Path::new(SHIPPED)), env(&[])).unwrap();
    for mut settings in [shipped, good(&text, &[]), good("", &[])] {
        let mut again = good(&settings.show(), &[]);
        (settings.source, again.source) = (None, None);
        assert_eq!(settings, again);
    }
    let secret = "[[auth.issuers]]\nname = \"old\"\nkeys = \"secret\"\nsame_subjects = true\nconfers = \"any\"";
    let shown = good(secret, &[("JWT_SECRET_KEY", SECRET)]);
    assert!(shown.show().contains("secret = \"***\""));
    assert!(!shown.show().contains("1234") && !format!("{shown:?}").contains("1234"));
}

#[test]
fn secrets_are_taken_verbatim_also_from_files() {
    let text = "[[auth.issuers]]\nname = \"old\"\nkeys = \"secret\"\nsame_subjects = true\nconfers = \"any\"";
    let secret_of = |settings: &Settings| match &settings.auth.issuers[0].keys {
        KeySource::Secret(secret) => secret.clone(),
        other => panic!("{other:?}"),
    };
    let bracket = "[\"not a list, but a secret of some length\"]";
    let (brace, odd) =
        ("{\"not\": \"a table, but a secret of some length\"}", "[1, 2, 3]{and some thirty letters more}");
    for secret in [SECRET, bracket, brace, odd, "12345678901234567890123456789012"] {
        for name in ["JWT_SECRET_KEY", "DOORWARD_AUTH__SECRET"] {
            assert_eq!(secret_of(&good(text, &[(name, secret)])), Secret::new(secret.into()), "{name}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, format!(" {SECRET}\n\n")).unwrap();
    let kept = Secret::new(format!(" {SECRET}\n").into());
    let path = file.display().to_string();
    for name in ["JWT_SECRET_KEY_FILE", "DOORWARD_AUTH__SECRET_FILE"] {
        assert_eq!(secret_of(&good(text, &[(name, &path)])), kept, "{name}");
    }
    assert_eq!(secret_of(&good(&format!("[auth]\nsecret_file = {path:?}\n{text}"), &[])), kept);
    // Whatever bytes it consists of; a secret need not be text.
    let bytes: Vec<u8> = (0xc0..=0xff).collect();
    std::fs::write(&file, [&bytes[..], b"\r\n"].concat()).unwrap();
    for name in ["JWT_SECRET_KEY_FILE", "DOORWARD_AUTH__SECRET_FILE"] {
        assert_eq!(secret_of(&good(text, &[(name, &path)])), Secret::new(bytes.clone()), "{name}");
    }
    let both = [("JWT_SECRET_KEY_FILE", path.as_str()), ("JWT_SECRET_KEY", SECRET)];
    assert!(mistakes(text, &both).contains("JWT_SECRET_KEY: `auth.secret`: stands beside `secret_file`"));
    let both = [("JWT_SECRET_KEY_FILE", path.as_str()), ("DOORWARD_AUTH__SECRET_FILE", path.as_str())];
    assert!(mistakes(text, &both).contains("is set by JWT_SECRET_KEY_FILE too"));
    assert_eq!(secret_of(&good(&format!("[auth]\nsecret = {SECRET:?}\n{text}"), &both[..1])), Secret::new(bytes));
    assert!(mistakes(text, &[("REDIS_URL_FILE", path.as_str())]).contains("not UTF-8, and a URL is text"));
    // The environment counts over the file.
    let both = format!("[auth]\nsecret_file = {path:?}\n{text}");
    assert_eq!(secret_of(&good(&both, &[("JWT_SECRET_KEY", SECRET)])), Secret::new(SECRET.into()));
}

#[test]
fn the_environment_overrides_the_file_and_only_names_with_two_underscores_are_keys() {
    let settings = good(
        "[gateway]\nlisten = \"127.0.0.1:1\"\nworkers = 1\n[upstreams.oms]\nendpoints = [\"http://a\"]",
        &[
            ("DOORWARD_GATEWAY__LISTEN", "127.0.0.1:2"),
            ("DOORWARD_GATEWAY__WORKERS", "3"),
            ("DOORWARD_GATEWAY__LIMITS__HEADERS", "50"),
            ("DOORWARD_GATEWAY__TRUSTED_PROXIES", "[\"10.0.0.1\", \"fd00::/8\"]"),
            ("DOORWARD_UPSTREAMS__OMS__TIMEOUTS__CONNECT", "2s"),
            ("DOORWARD_ADMIN__ENABLED", "false"),
            ("DOORWARD_CORPORA", "/nowhere"),
            ("DOORWARD_ANYTHING", "x"),
            ("GATEWAY__LISTEN", "x"),
            ("REDIS_URL", ""),
            ("AUTH_MODE", "local"),
        ],
    );
    assert_eq!(settings.gateway.listen.port(), 2);
    assert_eq!((settings.gateway.workers, settings.gateway.limits.headers), (3, 50));
    assert_eq!(settings.gateway.trusted_proxies.len(), 2);
    assert_eq!(settings.upstreams["oms"].connect, Duration::from_secs(2));
    assert!(!settings.admin.enabled);
}

#[test]
fn a_variable_that_begins_with_a_bracket_is_a_list_only_where_the_key_takes_one() {
    let settings = good(
        "[gateway]\nlisten = \"127.0.0.1:1\"\n[upstreams.oms]\nendpoints = [\"http://a\"]\ntimeouts = { connect = \"3s\" }",
        &[
            ("REDIS_URL", "redis://h"),
            ("DOORWARD_GATEWAY__LISTEN", "[::1]:2"),
            ("DOORWARD_ADMIN__LISTEN", "[::1]:3"),
            ("DOORWARD_PROBES__LISTEN", "[::]:4"),
            ("DOORWARD_ADMIN__HOSTS", "[\"[::1]\"]"),
            ("DOORWARD_ADMIN__SOCKET", "[1]"),
            ("DOORWARD_REVOCATION__MODE", "lookup"),
            ("DOORWARD_REVOCATION__LOOKUP_KEY", "{jti}"),
            ("DOORWARD_UPSTREAMS__OMS", "{ endpoints = [\"http://b\"] }"),
        ],
    );
    assert_eq!(settings.gateway.listen.to_string(), "[::1]:2");
    assert_eq!(settings.admin.listen.to_string(), "[::1]:3");
    assert_eq!(settings.probes.unwrap().to_string(), "[::]:4");
    assert_eq!(settings.admin.hosts, ["[::1]"]);
    assert_eq!(settings.admin.socket.as_deref(), Some(Path::new("[1]")));
    assert_eq!(settings.revocation.lookup_key.text(), "{jti}");
    let oms = &settings.upstreams["oms"];
    assert_eq!((oms.endpoints[0].authority.as_str(), oms.connect.as_secs()), ("b", 3), "a table is merged");
    for key in ["{token}", "{token_sha256}", "{sub}", "{sid}", "{jti}{sid}"] {
        let variables = [("REDIS_URL", "redis://h"), ("DOORWARD_REVOCATION__LOOKUP_KEY", key)];
        assert_eq!(good("[revocation]\nmode = \"lookup\"", &variables).revocation.lookup_key.text(), key);
    }
    // A level below a text is no key, and not passed over.
    let below = [("DOORWARD_AUTH__SECRET", "{a = 1}"), ("DOORWARD_AUTH__SECRET__B", "2")];
    assert!(mistakes("", &below).contains("DOORWARD_AUTH__SECRET__B: `auth.secret`: expected text"));
}

#[test]
fn doorward_config_names_the_file_and_the_option_wins() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one.toml"), directory.path().join("two.toml"));
    std::fs::write(&one, "[gateway]\nworkers = 1").unwrap();
    std::fs::write(&two, "[gateway]\nworkers = 2").unwrap();
    let variables = [("DOORWARD_CONFIG", one.to_str().unwrap())];
    assert_eq!(Settings::load(None, env(&variables)).unwrap().0.gateway.workers, 1);
    assert_eq!(Settings::load(Some(&two), env(&variables)).unwrap().0.gateway.workers, 2);
    let missing = [("DOORWARD_CONFIG", "/no/such/file.toml")];
    let error = Settings::load(None, env(&missing)).unwrap_err().to_string();
    assert!(error.contains("/no/such/file.toml: cannot read the configuration (named by DOORWARD_CONFIG)"), "{error}");
}

#[test]
fn endpoints_are_read_exactly() {
    let endpoint = |url: &str| {
        let settings = good(&format!("[upstreams.a]\nendpoints = [{url:?}]"), &[]);
        let endpoint = &settings.upstreams["a"].endpoints[0];
        let at = match &endpoint.address {
            Address::Tcp { host, port } => format!("{host} {port}"),
            Address::Unix(path) => path.display().to_string(),
        };
        format!("{:?} {at} {}", endpoint.scheme, endpoint.authority)
    };
    assert_eq!(endpoint("http://127.0.0.1:8000"), "Http 127.0.0.1 8000 127.0.0.1:8000");
    assert_eq!(endpoint("http://oms/"), "Http oms 80 oms");
    assert_eq!(endpoint("http://oms:80"), "Http oms 80 oms");
    assert_eq!(endpoint("http://[::1]"), "Http ::1 80 [::1]");
    assert_eq!(endpoint("http://[::1]:8000"), "Http ::1 8000 [::1]:8000");
    assert_eq!(endpoint("https://oms"), "Https oms 443 oms");
    assert_eq!(endpoint("https://oms:443"), "Https oms 443 oms");
    assert_eq!(endpoint("https://oms:80"), "Https oms 80 oms:80");
    assert_eq!(endpoint("h2c://oms:50051"), "H2c oms 50051 oms:50051");
    assert_eq!(endpoint("unix:/run/oms.sock"), "Http /run/oms.sock localhost");
    assert_eq!(endpoint("unix:///run/oms.sock"), "Http /run/oms.sock localhost");
}

#[test]
fn t05_an_issued_token_never_outlives_what_is_accepted() {
    let text = "[identity]\naccess_token = \"2h\"\n[[auth.issuers]]\nname = \"d\"\nissuer = \"i\"\naudience = [\"oms\"]\nkeys = \"local\"";
    assert!(mistakes(text, &[]).contains("identity.access_token"));
    good(&format!("{text}\nmax_lifetime = \"2h\""), &[]);
    // What nobody wrote and nobody issues is in nobody's way.
    let short = &text[text.find("[[").unwrap()..];
    let short = format!("{short}\nmax_lifetime = \"5m\"");
    good(&short, &[]);
    good(&format!("[identity]\nenabled = false\n{short}"), &[]);
    for identity in ["access_token = \"6m\"", "enabled = true"] {
        let said = mistakes(&format!("[identity]\n{identity}\n{short}"), &[]);
        assert!(said.contains("longer than `max_lifetime` of issuer \"d\", 5m"), "{said}");
    }
    assert!(mistakes(&format!("{text}\nmax_lifetime = \"367d\""), &[]).contains("auth.issuers[0].max_lifetime"));
}

#[test]
fn t07_a_foreign_issuer_says_whose_its_subjects_are() {
    assert!(mistakes(&foreign(""), &[]).contains("subject_prefix"));
    assert!(mistakes(&foreign("same_subjects = true\nsubject_prefix = \"kc:\""), &[]).contains("same_subjects"));
    assert!(mistakes(&foreign("same_subjects = false"), &[]).contains("subject_prefix"));
    let (settings, warnings) = load(&foreign("subject_prefix = \"kc:\""), &[]).unwrap();
    assert_eq!(settings.auth.issuers[0].confers, crate::token::Confers::Nothing);
    assert!(warnings.contains("auth.issuers[0].confers"), "{warnings}");
}

#[test]
fn t07_no_two_issuers_put_their_people_together_by_their_prefixes() {
    let issuer = |name: &str, more: &str| {
        format!(
            "[[auth.issuers]]\nname = \"{name}\"\nissuer = \"https://{name}\"\naudience = [\"oms\"]\n\
             keys = \"jwks+file://{name}.json\"\nconfers = \"any\"\n{more}\n"
        )
    };
    let prefixed = |name: &str, prefix: &str| issuer(name, &format!("subject_prefix = \"{prefix}\""));
    for (one, two) in [("kc:", "kc:"), ("kc", "kc:"), ("kc:", "kc"), ("k", "kc:realm:")] {
        let said = mistakes(&format!("{}{}", prefixed("first", one), prefixed("second", two)), &[]);
        assert!(said.contains("auth.issuers[1].subject_prefix"), "{said}");
        assert!(said.contains("\"first\"") && said.contains("\"second\""), "{one} {two}: {said}");
    }
    let same = issuer("same", "same_subjects = true");
    for (one, two) in [("kc:", "ad:"), ("kc:", "xkc:"), ("kc:a:", "kc:b:")] {
        good(&format!("{}{same}{}", prefixed("first", one), prefixed("second", two)), &[]);
    }
}

#[test]
fn t07_issuers_never_share_keys() {
    let issuer = |name: &str, keys: &str| {
        format!(
            "[[auth.issuers]]\nname = \"{name}\"\nissuer = \"https://{name}\"\naudience = [\"oms\"]\nkeys = \"{keys}\"\n\
             confers = \"any\"\nsubject_prefix = \"{name}:\"\n"
        )
    };
    let both = |one: &str, other: &str| format!("{}{}", issuer("a", one), issuer("b", other));
    let secret = [("JWT_SECRET_KEY", SECRET)];
    let said = mistakes(&both("secret", "secret"), &secret);
    assert!(said.contains("`auth.issuers[1].keys`: is \"secret\" for two issuers; issuers never share keys"), "{said}");
    // One provider may publish one set for all its tenants.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, "{}").unwrap();
    std::os::unix::fs::symlink(&file, folder.path().join("link.json")).unwrap();
    let (file, link) =
        (format!("jwks+file://{}", file.display()), format!("jwks+file://{}/link.json", folder.path().display()));
    for (one, other, shared) in [
        ("jwks+https://idp/keys", "jwks+https://idp/keys", true),
        ("jwks+https://idp/keys", "jwks+https://idp/others", false),
        (&file, &link, true),
        (&file, "jwks+file://others.json", false),
        (&file, "secret", false),
    ] {
        let (_, warnings) = load(&both(one, other), &secret).unwrap();
        let said = warnings.contains("`auth.issuers[1].keys`: are those of issuer \"a\" too");
        assert_eq!(said, shared, "{one} {other}: {warnings}");
    }
}

#[test]
fn t11_t19_each_key_file_is_for_one_use_by_whatever_path_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("keys.json"), "").unwrap();
    std::os::unix::fs::symlink(at("keys.json"), at("link.json")).unwrap();
    let here = std::env::current_dir().unwrap();
    let (relative, absolute) = ("no/such/keys.json", here.join("no/such/keys.json").display().to_string());
    for (tokens, other) in
        [(at("keys.json"), at("link.json")), (at("link.json"), at("keys.json")), (relative.into(), absolute)]
    {
        let said = mistakes(
            &format!(
                "[auth]\nlocal_keys = {tokens:?}\n[publication]\nkey_file = {other:?}\n\
                 [gateway.assertion]\nenabled = true\nkey_file = {other:?}"
            ),
            &[],
        );
        for key in ["gateway.assertion.key_file", "publication.key_file"] {
            assert!(said.contains(&format!("`{key}`: is the file of `auth.local_keys`")), "{said}");
        }
        let said = mistakes(
            &format!("[publication]\nkey_file = {tokens:?}\n[gateway.assertion]\nenabled = true\nkey_file = {other:?}"),
            &[],
        );
        assert!(said.contains("`gateway.assertion.key_file`: is the file of `publication.key_file`"), "{said}");
    }
}

#[test]
fn files_with_secrets_that_others_can_read_are_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::token::{Algorithm, KeySet};
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let private = KeySet::generate(Algorithm::EdDSA).unwrap();
    let set = KeySet::parse(private.expose(), &[Algorithm::EdDSA], crate::token::jwk::Trust::File).unwrap();
    let public = set.public_jwks().to_string();
    let shared = format!("{{\"kty\":\"oct\",\"k\":\"{}\"}}", "A".repeat(43));
    for mode in [0o644, 0o640, 0o604, 0o600, 0o400] {
        let warned = |name: &str, content: &[u8]| {
            let keys = format!("jwks+file://{}", write(name, content, mode));
            let text = foreign("subject_prefix = \"kc:\"\nconfers = \"any\"").replace("jwks+file://kc.json", &keys);
            let (_, warnings) = load(&text, &[]).unwrap();
            warnings.contains("`auth.issuers[0].keys`: others can read the secret or private keys")
        };
        let exposed = mode & 0o044 != 0;
        assert_eq!(warned("private", private.expose()), exposed, "{mode:o}");
        assert_eq!(warned("oct", shared.as_bytes()), exposed, "{mode:o}");
        assert!(!warned("public", public.as_bytes()), "{mode:o}: everybody may");
        let path = write("secret", SECRET.as_bytes(), mode);
        let (_, warnings) = load("", &[("JWT_SECRET_KEY_FILE", &path)]).unwrap();
        let said =
            format!("`auth.secret_file`: others can read the secret in {path} (mode {mode:04o}); run chmod 600 {path}");
        assert_eq!(warnings.contains(&said), exposed, "{warnings}");
        let text = format!("[redis]\nsentinel_password_file = {path:?}");
        let (_, warnings) = load(&text, &[]).unwrap();
        assert_eq!(warnings.contains("`redis.sentinel_password_file`: others can read"), exposed, "{warnings}");
    }
}

#[test]
fn t15_a_blacklist_by_the_tokens_text_is_warned_of_where_a_token_has_two_spellings() {
    let warned = |key: &str, algorithms: &str, mode: &str| {
        let text = foreign(&format!(
            "same_subjects = true\nconfers = \"any\"\n{algorithms}\n[revocation]\nmode = \"{mode}\"\nlookup_key = \"{key}\""
        ));
        let (_, warnings) = load(&text, &[("REDIS_URL", "redis://127.0.0.1:6379")]).unwrap();
        warnings.contains("revocation.lookup_key")
    };
    let (both, without) = ("algorithms = [\"RS256\", \"ES256\"]", "algorithms = [\"RS256\", \"EdDSA\"]");
    for key in ["blacklist:{token}", "b:{token_sha256}", "{jti}{token_sha256}"] {
        assert!(warned(key, both, "lookup") && warned(key, "", "lookup"), "ES256 is among the default: {key}");
        assert!(!warned(key, without, "lookup") && !warned(key, both, "replicated"), "{key}");
    }
    for key in ["blacklist:{jti}", "{sub}:{sid}", "token:{jti}"] {
        assert!(!warned(key, both, "lookup"), "{key}");
    }
}

#[test]
fn t29_trusting_everybody_has_to_be_said_twice() {
    for (key, network) in
        [("trusted_proxies", "0.0.0.0/0"), ("trusted_proxies", "::/0"), ("proxy_protocol_from", "::/0")]
    {
        let text = format!("[gateway]\n{key} = [\"{network}\"]");
        assert!(mistakes(&text, &[]).contains("dangerous_trust_everyone"));
        good(&format!("{text}\ndangerous_trust_everyone = true"), &[]);
    }
}

#[test]
fn what_is_not_built_is_refused_when_switched_on() {
    for text in [
        "[identity]\nenabled = true",
        "[mail]\nsmtp = \"x\"",
        "[database]\nurl = \"sqlite://x\"",
        "[events]\nsinks = [\"log\", \"kafka\"]",
        "[events.kafka]\nbrokers = []",
        "[identity]\nservices = []",
    ] {
        let said = mistakes(text, &[]);
        assert!(said.contains("not part of this version"), "{text}: {said}");
    }
    let said = mistakes("", &[("DATABASE_URL", "sqlite://x")]);
    assert!(said.contains("not part of this version") && said.contains("DATABASE_URL"), "{said}");
}

#[test]
fn t18_keys_behind_a_url_come_by_tls_or_from_this_machine_and_are_never_over_an_hour_old() {
    let remote = |url: &str, more: &str| {
        foreign(&format!("subject_prefix = \"kc:\"\n{more}")).replace("jwks+file://kc.json", &format!("jwks+{url}"))
    };
    let settings = good(&remote("https://kc/jwks", ""), &[]);
    let KeySource::JwksUrl(jwks) = &settings.auth.issuers[0].keys else { panic!("{settings:?}") };
    let seconds = [jwks.refresh, jwks.max_age, jwks.cool_down, jwks.timeout].map(|time| time.as_secs());
    assert_eq!((jwks.url.as_str(), seconds, jwks.max_bytes), ("https://kc/jwks", [300, 3600, 30, 5], 1 << 18));
    let table =
        "confers = \"any\"\njwks = { refresh = \"1m\", max_age = \"2m\", ca = \"ca.pem\", max_bytes = \"1KiB\" }";
    let mut settings = good(&remote("http://[::1]:9/jwks?a=b", table), &[]);
    let mut again = good(&settings.show(), &[]);
    (settings.source, again.source) = (None, None);
    assert_eq!(settings, again);
    for (url, more, said) in [
        ("http://kc/jwks", "", "in plain text over a network"),
        ("http://127.0.0.1.evil.example/", "", "in plain text over a network"),
        ("https://", "", "names no URL"),
        ("https:///jwks", "", "names no URL"),
        ("httpss://kc/jwks", "", "names no URL"),
        ("https://kc/jwks#x", "", "names no URL"),
        ("https://me:secret@kc/jwks", "", "a user name"),
        ("https://kc/jwks", "jwks = { max_age = \"61m\" }", "a duration from \"1s\" to \"1h\""),
        ("https://kc/jwks", "jwks = { refresh = \"1h\" }", "is not shorter than `max_age`"),
        ("https://kc/jwks", "jwks = { refesh = \"1m\" }", "Did you mean `refresh`?"),
        ("https://kc/jwks", "algorithms = [\"HS256\"]", "a secret that is published at a URL is none"),
        ("file://kc.json", "jwks = { refresh = \"1m\" }", "is for keys that are fetched"),
    ] {
        let found = mistakes(&remote(url, more), &[]);
        assert!(found.contains(said), "{url} {more}: {found}");
    }
}

#[test]
fn redis_is_read_and_its_password_never_shown() {
    let text = "[redis]\nprefix = \"two\"\ntimeouts = { connect = \"3s\" }\ntls = { ca = \"ca.pem\", cert = \"a\", key = \"b\" }\n\
                [revocation]\non_stale = \"allow\"\nkeep = \"25h\"\n[publication]\npublic_keys = [\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"]";
    for variable in ["REDIS_URL", "DOORWARD_REDIS__URL"] {
        let settings = good(text, &[(variable, "rediss+sentinel://gate:hunter2@a,b:2/m/3")]);
        let redis = settings.redis.clone().unwrap();
        assert_eq!((redis.prefix.as_str(), redis.connect, redis.url.database), ("two", Duration::from_secs(3), 3));
        assert_eq!(settings.publication.key_file, None);
        assert_eq!(settings.revocation.on_stale, crate::revocation::OnStale::Allow);
        let shown = settings.show();
        assert!(shown.contains("rediss+sentinel://gate:***@a:26379,b:2/m/3"), "{shown}");
        assert_eq!(settings.revocation.keep, Some(Duration::from_hours(25)));
        assert!(shown.contains("keep = \"25h\""), "{shown}");
        assert!(!shown.contains("hunter2") && !format!("{settings:?}").contains("hunter2"));
    }
    let mut open = good(text, &[("REDIS_URL", "rediss://h/1")]);
    let mut again = good(&open.show(), &[]);
    (open.source, again.source) = (None, None);
    assert_eq!(open, again);
    assert_eq!(good("", &[("REDIS_URL", "")]).redis, None);
    assert_eq!(good("", &[]).publication.key_file.unwrap(), Path::new("data/publication-key.jwks.json"));
}

#[test]
fn a_sentinels_password_is_taken_verbatim_from_wherever_it_comes_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let path = file.display().to_string();
    let url = ("REDIS_URL", "redis+sentinel://a/m");
    let read = |text: &str, variables: &[(&str, &str)]| {
        let variables: Vec<_> = [url].iter().chain(variables).copied().collect();
        let settings = good(&format!("[redis]\n{text}"), &variables);
        let (user, password) = settings.redis.clone().unwrap().sentinel.unwrap();
        assert!(settings.show().contains("sentinel_password = \"***\""));
        assert!(!settings.show().contains("hunter2") && !format!("{settings:?}").contains("hunter2"));
        (user, String::from_utf8(password.expose().to_vec()).unwrap())
    };
    let from_file = format!("sentinel_password_file = {path:?}");
    assert_eq!(read("sentinel_password = \"hunter2\"", &[]), (None, "hunter2".into()));
    assert_eq!(read(&from_file, &[]), (None, "hunter2".into()));
    let user = "sentinel_user = \"gate\"\nsentinel_password = \"hunter2\"";
    assert_eq!(read(user, &[]), (Some("gate".into()), "hunter2".into()));
    assert_eq!(read("", &[("DOORWARD_REDIS__SENTINEL_PASSWORD_FILE", &path)]), (None, "hunter2".into()));
    for password in ["4711", "true", "[1, 2]", "{ a = 1 }", "[hunter2", " hunter2 "] {
        let variable = ("DOORWARD_REDIS__SENTINEL_PASSWORD", password);
        assert_eq!(read("", &[variable]), (None, password.into()));
        assert_eq!(read(&from_file, &[variable]), (None, password.into()), "the environment counts over the file");
    }
    for (text, said) in [
        (format!("sentinel_password = \"hunter2\"\n{from_file}"), "`redis.sentinel_password`: stands beside"),
        ("sentinel_user = \"gate\"".to_owned(), "`redis.sentinel_user`: stands without a password"),
        ("sentinel_password = 4711".to_owned(), "`redis.sentinel_password`: expected text in quotes"),
    ] {
        let mistakes = mistakes(&format!("[redis]\n{text}"), &[url]);
        assert!(mistakes.contains(said) && !mistakes.contains("hunter2"), "{mistakes}");
    }
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(mistakes(&format!("[redis]\n{from_file}"), &[url]).contains("is not UTF-8"));
}

#[test]
fn tls_names_its_files_and_client_auth_needs_an_authority() {
    let tls = |table: &str| format!("[gateway]\ntls = {{ {table} }}\n[admin]\ntls = {{ {table} }}");
    let one = "certificates = [{ cert = \"a.crt\", key = \"a.key\" }]";
    let mut settings = good(&tls(&format!("{one}, client_ca = \"ca.crt\", client_auth = \"optional\"")), &[]);
    let mut again = good(&settings.show(), &[]);
    (settings.source, again.source) = (None, None);
    assert_eq!(settings, again);
    assert_eq!(settings.admin.tls.unwrap().key, "admin.tls");
    assert_eq!(good(&tls(one), &[]).gateway.tls.unwrap().client_auth, crate::net::ClientAuth::Required);
    for (table, said) in [
        ("certificates = []", "`gateway.tls.certificates`: names no certificate"),
        ("certificates = [{ cert = \"a.crt\" }]", "`gateway.tls.certificates[0].key`: is missing"),
        (&format!("{one}, client_auth = \"optional\""), "`gateway.tls.client_auth`: says how"),
    ] {
        let mistakes = mistakes(&tls(table), &[]);
        assert!(mistakes.contains(said), "{mistakes}");
    }
}

#[test]
fn every_mistake_has_a_place_and_a_mend() {
    let cases: &[(&str, &str, Variables)] = &[
        ("an unknown key with a near one", "[gateway]\nlistn = \"127.0.0.1:1\"", &[]),
        ("an unknown section", "[gatway]\nlisten = \"127.0.0.1:1\"", &[]),
        ("an unknown key of a list's table", "[[auth.issuers]]\nname = \"a\"\nkeys = \"local\"\nclaim = {}", &[]),
        ("a wrong type", "[gateway]\nworkers = \"two\"\nenabled = 1\nlisten = 8090", &[]),
        ("numbers out of bounds", "[gateway.limits]\nheaders = 0\nconnections = -1", &[]),
        ("quantities without a unit", "[gateway]\ngrace = \"30\"\nlimits = { body = \"64MB\" }", &[]),
        ("a syntax error", "[gateway]\nlisten = \"127.0.0.1:1\"\nworkers 3\n", &[]),
        ("a syntax error beside a secret", "[auth]\nsecret = \"hunter2\n", &[]),
        ("a key twice", "[gateway]\nworkers = 1\nworkers = 2", &[]),
        ("a bad address", "[gateway]\nlisten = \"localhost:8090\"\n[admin]\nlisten = \"8091\"", &[]),
        ("two listeners on one port", "[admin]\nlisten = \"127.0.0.1:8090\"", &[]),
        ("nothing to run", "[admin]\nenabled = false\n[gateway]\nenabled = false", &[]),
        ("a bad network", "[gateway]\ntrusted_proxies = [\"10.0.0.0/33\", \"proxy\"]", &[]),
        ("a bad mode", "[gateway]\nmode = \"permissive\"", &[]),
        (
            "endpoints that are none",
            "[upstreams.a]\n[upstreams.b]\nendpoints = []\n[upstreams.c]\nendpoints = [\"oms:8000\", \"ftp://a\", \"http://a/b\", \"http://u:hunter2@a\", \"http://a:0\", \"http://a:99999\", \"http://\", \"unix:run/a\"]",
            &[],
        ),
        (
            "an upstream's further settings",
            "[upstreams.a]\nendpoints = [\"http://a\"]\ntls = { cert = \"a.pem\", server_name = \"a b\" }\nhealth = { interval = \"5s\" }\nejection = { failures = 0, base = \"1m\" }\nlimits = { requests = 0 }\n[upstreams.b]\nendpoints = [\"https://b\"]\nhealth = { path = \"health\" }",
            &[],
        ),
        ("a reserved upstream", "[upstreams.doorward-admin]\nendpoints = [\"http://a\"]", &[]),
        ("a weak secret", "[auth]\nsecret = \"hunter2\"", &[]),
        ("a weak secret from the environment", "", &[("JWT_SECRET_KEY", "hunter2")]),
        ("a secret that is missing", "[[auth.issuers]]\nname = \"a\"\nkeys = \"secret\"\nsame_subjects = true", &[]),
        ("a secret file that is missing", "[auth]\nsecret_file = \"/no/such/file\"", &[]),
        ("a secret file that a variable names", "", &[("JWT_SECRET_KEY_FILE", "/no/such/file")]),
        ("a secret twice", "", &[("JWT_SECRET_KEY", SECRET), ("DOORWARD_AUTH__SECRET", SECRET)]),
        ("a secret of a wrong type", "[auth]\nsecret = 12345678901", &[]),
        (
            "two issuers that cannot be told apart",
            "[[auth.issuers]]\nname = \"a\"\nissuer = \"x\"\naudience = [\"oms\"]\nkeys = \"local\"\n[[auth.issuers]]\nname = \"a\"\nissuer = \"x\"\naudience = [\"oms\"]\nkeys = \"local\"",
            &[],
        ),
        (
            "two issuers without iss",
            "[[auth.issuers]]\nname = \"a\"\nkeys = \"local\"\n[[auth.issuers]]\nname = \"b\"\nissuer = \"x\"\naudience = []\nkeys = \"jwks+file://x\"\nsame_subjects = true",
            &[],
        ),
        ("an issuer with nothing", "[[auth.issuers]]\n", &[]),
        (
            "keys from nowhere",
            "[[auth.issuers]]\nname = \"a b\"\nkeys = \"vault\"\nalgorithms = [\"none\", \"RS512\"]",
            &[],
        ),
        (
            "algorithms that do not fit",
            "[[auth.issuers]]\nname = \"a\"\nkeys = \"secret\"\nalgorithms = [\"HS256\", \"RS256\"]\nsame_subjects = true",
            &[("JWT_SECRET_KEY", SECRET)],
        ),
        (
            "doorward's own keys with a foreigner's settings",
            "[[auth.issuers]]\nname = \"a\"\nkeys = \"local\"\nconfers = \"any\"\nadmin = true\nalgorithms = []",
            &[],
        ),
        (
            "roles that are none",
            "[[auth.issuers]]\nname = \"a\"\nkeys = \"jwks+file://x\"\nsame_subjects = true\nconfers = { viewer = \"viewer\", admin = 1 }",
            &[],
        ),
        (
            "roles of a wrong shape",
            "[[auth.issuers]]\nname = \"a\"\nkeys = \"jwks+file://x\"\nsame_subjects = true\nconfers = \"all\"",
            &[],
        ),
        (
            "mistakes of the environment",
            "",
            &[
                ("DOORWARD_GATEWAY__LISTN", "x"),
                ("DOORWARD_GATEWAY__WORKERS", "many"),
                ("DOORWARD_ADMIN__HOSTS", "localhost"),
            ],
        ),
        (
            "lists and tables that are no TOML",
            "[auth]\nlocal_keys = \"x\"",
            &[
                ("DOORWARD_ADMIN__HOSTS", "[localhost]"),
                ("DOORWARD_GATEWAY__TRUSTED_PROXIES", "[\"10.0.0.1\""),
                ("DOORWARD_REDIS__TIMEOUTS", "{ connect = hunter2"),
                ("DOORWARD_AUTH__ISSUERS", "[{ name = \"a\" "),
                ("DOORWARD_AUTH__IAM_SERVICE__CONFERS", "{ a = b }"),
                ("DOORWARD_UPSTREAMS__A__ENDPOINTS", "{http://a}"),
            ],
        ),
        ("a variable that names no key", "", &[("DOORWARD___LISTEN", "x")]),
        ("a bad log level and file", "[log]\nlevel = \"loud=very\"\nformat = \"xml\"\n[roles]\nfile = \"\"", &[]),
        (
            "an assertion that lives too long, by the keys of access tokens",
            "[gateway.assertion]\nenabled = true\nttl = \"10m\"\nkey_file = \"data/local-keys.jwks.json\"",
            &[],
        ),
        ("an assertion in parts of a second", "[gateway.assertion]\nttl = \"1500ms\"\nkeyfile = \"x\"", &[]),
        (
            "a Redis that is none",
            "[redis]\nurl = \"redis://u:hunter2@\"\nprefix = \"a{b\"\ntls = { cert = \"a\" }\ntimeouts = { response = \"0s\" }\n\
             [revocation]\nmax_staleness = \"1s\"\n[publication]\npublic_keys = [\"AAAA\"]",
            &[],
        ),
        ("a time that is none", "[revocation]\nkeep = \"400d\"", &[]),
        ("a follower of nobody", "[publication]\npublic_keys = [\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"]", &[]),
        ("hosts with ports", "[admin]\nhosts = [\"localhost:8091\"]", &[]),
    ];
    let mut said = String::new();
    for (name, text, variables) in cases {
        let mistakes = mistakes(text, variables);
        assert!(!mistakes.contains("hunter2") && !mistakes.contains("1234567"), "{name} shows a secret: {mistakes}");
        assert!(mistakes.contains("help: "), "{name} has no mend: {mistakes}");
        writeln!(said, "# {name}\n{mistakes}\n").unwrap();
    }
    insta::assert_snapshot!(said);
}

#[test]
fn who_is_asked_elsewhere_is_shown_and_reads_back() {
    let text = "[auth]\nmode = \"iam_service\"\niam_service_url = \"https://users.test/iam/\"\n[auth.iam_service]\n\
        cache = \"3s\"\nquestions = 8\nca = \"ca.pem\"\nadmin = true\nconfers = { USER = \"ROLE_USER\" }\n\
        [redis]\nurl = \"redis://h\"\n[revocation]\nmode = \"lookup\"\nlookup_key = \"bl:{sid}\"\nlookup_age = \"2s\"\n";
    let mut settings = good(text, &[]);
    let mut again = good(&settings.show(), &[]);
    (settings.source, again.source) = (None, None);
    assert_eq!(settings, again);
    let iam = settings.auth.iam.as_ref().unwrap();
    assert_eq!((iam.url.as_str(), iam.cache.as_secs()), ("https://users.test/iam", 3));
    assert!(settings.shared_redis().is_none(), "it is another program's");
    let asked = good("", &[("AUTH_MODE", "iam_service"), ("IAM_SERVICE_URL", "http://127.0.0.1:9/")]);
    let iam = asked.auth.iam.unwrap();
    assert_eq!(iam.url, "http://127.0.0.1:9");
    assert!(iam.max_lifetime >= Duration::from_hours(8 * 24), "templates of FastAPI issue tokens for eight days");
    assert!(good("[auth]\niam_service_url = \"http://h\"", &[]).auth.iam.is_none(), "not asked in the mode \"local\"");
}
