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

/// A word outside its grammar; the text says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {expected}")]
pub struct BadWord {
    /// What was found.
    pub found: String,
    /// What the word has to look like, in words, beginning with an article.
    pub expected: &'static str,
}

impl PermissionCode {
    /// # Errors
    /// [`BadWord`] for anything but two or three parts of `[a-z0-9_-]+` joined by `:`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let _ = text;
        todo!()
    }
}

impl Grant {
    /// # Errors
    /// [`BadWord`] for anything but a permission code, `*`, or one or two parts followed by `:*`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let _ = text;
        todo!()
    }

    /// Whether holding this is holding `code`. `order:*` covers one or more further parts.
    #[must_use]
    pub fn covers(&self, code: &PermissionCode) -> bool {
        let _ = code;
        todo!()
    }
}

impl RoleKey {
    /// # Errors
    /// [`BadWord`] for anything but `ROLE_[A-Z0-9_]{1,60}`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let _ = text;
        todo!()
    }
}

impl TierKey {
    /// # Errors
    /// [`BadWord`] for anything but `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let _ = text;
        todo!()
    }
}

impl ServiceName {
    /// # Errors
    /// [`BadWord`] for anything but `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Result<Self, BadWord> {
        let _ = text;
        todo!()
    }
}
