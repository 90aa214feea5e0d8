//! The words of the model, each checked once, at the door (SPEC 1, THREATS T22).

use std::fmt;

macro_rules! word {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);
        impl $name {
            /// The word as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

word! { /// A required permission: `resource:action` or `resource:sub-resource:action`; lower case, digits, `-`, `_`.
PermissionCode }
word! { /// What a role or tier holds: a permission code, or one that ends in `*` (`order:*`, `*`).
Grant }
word! { /// A role's key: `ROLE_[A-Z0-9_]{1,60}`.
RoleKey }
word! { /// A tier's key: `[A-Za-z0-9_-]{1,64}`.
TierKey }
word! { /// A protected application: `[A-Za-z0-9_-]{1,64}`.
ServiceName }

/// The longest word of the model, in bytes: they end up in headers, labels and log lines.
const LONGEST: usize = 200;

/// A word outside its grammar; the text says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct BadWord {
    /// What was found.
    pub found: String,
    /// What the word has to look like, in words, beginning with an article.
    pub expected: &'static str,
}

const PERMISSION: &str = "a permission code: two or three parts of lower-case letters, digits, `-` or `_`, joined by `:`, \
                          such as `order:view`";
const GRANT: &str = "a permission code such as `order:view`, or a grant that ends in `*`, such as `order:*` or `*`";
const ROLE: &str = "a role key: `ROLE_` and 1 to 60 of `A` to `Z`, `0` to `9` and `_`, such as `ROLE_EDITOR`";
const TIER: &str = "a tier key: 1 to 64 letters, digits, `-` or `_`, such as `PREMIUM`";
const SERVICE: &str = "a service name: 1 to 64 letters, digits, `-` or `_`, such as `oms`";

fn bad(found: &str, expected: &'static str) -> BadWord {
    BadWord { found: found.chars().take(LONGEST).collect(), expected }
}

/// How many parts `text` has, if each is one or more of `[a-z0-9_-]`.
fn parts(text: &str) -> Option<usize> {
    if text.len() > LONGEST {
        return None;
    }
    let mut count = 0;
    for part in text.split(':') {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if part.is_empty() || !part.bytes().all(good) {
            return None;
        }
        count += 1;
    }
    Some(count)
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl PermissionCode {
    /// # Errors
    /// [`BadWord`] for anything but two or three parts of `[a-z0-9_-]+` joined by `:`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        match parts(text) {
            Some(2 | 3) => Ok(Self(text.into())),
            _ => Err(bad(text, PERMISSION)),
        }
    }
}

impl Grant {
    /// # Errors
    /// [`BadWord`] for anything but a permission code, `*`, or one or two parts followed by `:*`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let good = match text.strip_suffix(":*") {
            Some(prefix) => matches!(parts(prefix), Some(1 | 2)),
            None => text == "*" || matches!(parts(text), Some(2 | 3)),
        };
        if good { Ok(Self(text.into())) } else { Err(bad(text, GRANT)) }
    }

    /// Whether holding this is holding `code`. `order:*` covers one or more further parts.
    #[must_use]
    pub fn covers(&self, code: &PermissionCode) -> bool {
        match self.prefix() {
            // The prefix keeps its colon, so `order:*` does not cover `orders:view`; a code never ends in a
            // colon, so at least one further part follows.
            Some(prefix) => code.0.starts_with(prefix),
            None => self.0 == code.0,
        }
    }

    /// What every covered code begins with, if this is a wildcard: `order:` for `order:*`, nothing for `*`.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }

    /// Whether this is `*`, which covers every permission, known or not.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        &*self.0 == "*"
    }
}

impl From<PermissionCode> for Grant {
    /// The grant of exactly this permission.
    fn from(code: PermissionCode) -> Self {
        Self(code.0)
    }
}

impl RoleKey {
    /// # Errors
    /// [`BadWord`] for anything but `ROLE_[A-Z0-9_]{1,60}`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        match text.strip_prefix("ROLE_") {
            Some(rest) if (1..=60).contains(&rest.len()) && rest.bytes().all(good) => Ok(Self(text.into())),
            _ => Err(bad(text, ROLE)),
        }
    }
}

impl TierKey {
    /// # Errors
    /// [`BadWord`] for anything but `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(bad(text, TIER)) }
    }
}

impl ServiceName {
    /// # Errors
    /// [`BadWord`] for anything but `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(bad(text, SERVICE)) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn t22_role_keys_cannot_smuggle_a_second_role() {
        for bad in [
            "x,ROLE_SUPER_ADMIN",
            "ROLE_A,ROLE_B",
            "ROLE_A B",
            "ROLE_",
            "role_a",
            "ROLE_é",
            "ROLE_A\n",
            "ROLE_A=",
            "ROLE_A%2C",
            " ROLE_A",
            "",
            "*",
        ] {
            assert!(RoleKey::parse(bad).is_err(), "{bad:?}");
        }
        assert!(RoleKey::parse(&format!("ROLE_{}", "A".repeat(61))).is_err());
        assert_eq!(RoleKey::parse(&format!("ROLE_{}", "9".repeat(60))).unwrap().as_str().len(), 65);
        assert_eq!(RoleKey::parse("ROLE_SUPER_ADMIN").unwrap().to_string(), "ROLE_SUPER_ADMIN");
    }

    #[test]
    fn t22_tiers_and_services_hold_no_separator() {
        for bad in ["", "a,b", "a=b", "a%b", "a b", "a.b", "é", "a\0"] {
            assert!(TierKey::parse(bad).is_err(), "{bad:?}");
            assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(ServiceName::parse(&"a".repeat(65)).is_err());
        assert!(ServiceName::parse(&"a".repeat(64)).is_ok());
        assert!(TierKey::parse("Premium_2-x").is_ok());
    }

    #[test]
    fn permission_codes_have_two_or_three_parts_and_no_wildcard() {
        for good in ["schema:view", "order:line-item:view_all", "a:1", "1:2:3"] {
            assert_eq!(PermissionCode::parse(good).unwrap().as_str(), good);
        }
        for bad in ["schema", "a:b:c:d", "Schema:view", "a::b", ":a", "a:", "order:*", "*", "a:b ", "a:é", ""] {
            assert!(PermissionCode::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_one_or_more_further_parts() {
        let code = |text| PermissionCode::parse(text).unwrap();
        let grant = |text| Grant::parse(text).unwrap();
        assert!(grant("order:*").covers(&code("order:view")));
        assert!(grant("order:*").covers(&code("order:item:view")));
        assert!(grant("order:item:*").covers(&code("order:item:view")));
        assert!(!grant("order:item:*").covers(&code("order:item")));
        assert!(!grant("order:*").covers(&code("orders:view")));
        assert!(!grant("order:view").covers(&code("order:view:all")));
        assert!(grant("*").covers(&code("order:view")));
        for bad in ["**", "order*", "*:view", "order:*:view", "a:b:c:*", ":*", "or*er:view", "order:**"] {
            assert!(Grant::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn words_are_kept_as_written_or_refused(text in "[A-Za-z0-9_:*é ,-]{0,12}") {
            if let Ok(word) = Grant::parse(&text) { prop_assert_eq!(word.as_str(), text.as_str()); }
            if let Ok(word) = PermissionCode::parse(&text) {
                prop_assert_eq!(word.as_str(), text.as_str());
                prop_assert!(Grant::parse(&text).unwrap().covers(&word));
            }
        }
    }
}
