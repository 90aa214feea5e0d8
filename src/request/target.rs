//! Cleaning a request target, so that what is matched is, byte for byte, what is forwarded (SPEC 3.2).

use std::borrow::Cow;

use super::Rejection;

/// What a host's policy loosens. The default refuses everything that two parsers could read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PathRules {
    /// `.` and `..` segments, plain or encoded.
    pub dot_segments: DotSegments,
    /// Repeated slashes.
    pub double_slash: DoubleSlash,
    /// `;name=value` parameters inside a segment.
    pub matrix_params: MatrixParams,
    /// `%2F` inside a segment.
    pub encoded_slash: EncodedSlash,
    /// `%3F`, `%23`, `%25`, `%3B` and `%5C` inside a segment.
    pub encoded_reserved: EncodedReserved,
    /// Whether literals are compared without regard to ASCII case.
    pub case: Case,
    /// Whether `/x` and `/x/` are the same path.
    pub trailing_slash: TrailingSlash,
}

macro_rules! loosening {
    ($(#[doc = $doc:literal])+ $name:ident { $strict:ident, $loose:ident = $word:literal }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
        pub enum $name {
            /// As strict as doorward is by default.
            #[default]
            $strict,
            #[doc = concat!("`", $word, "` in the policy's `path:` block.")]
            $loose,
        }
        impl $name {
            /// The word that loosens it in a policy file.
            pub const WORD: &'static str = $word;
        }
    };
}

loosening! { /// Dot segments: refused, or resolved as RFC 3986 section 5.2.4 says.
DotSegments { Refuse, Resolve = "resolve" } }
loosening! { /// Repeated slashes: refused, or merged into one.
DoubleSlash { Refuse, Merge = "merge" } }
loosening! { /// Matrix parameters: refused, or matched without and forwarded with them.
MatrixParams { Refuse, Keep = "keep" } }
loosening! { /// An encoded slash: refused, or kept inside its segment.
EncodedSlash { Refuse, Keep = "keep" } }
loosening! { /// Other encoded delimiters: refused, or kept.
EncodedReserved { Refuse, Keep = "keep" } }
loosening! { /// Letter case of literals: significant, or ignored.
Case { Sensitive, Insensitive = "insensitive" } }
loosening! { /// A trailing slash: significant, or ignored when matching (it is forwarded as sent).
TrailingSlash { Distinct, Same = "same" } }

/// A cleaned target. Private fields: [`clean`] is the only constructor, so holding one proves that it
/// was cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanTarget<'r> {
    /// Path and query, byte for byte what is forwarded.
    forward: Cow<'r, str>,
    /// Length of the path within `forward`.
    path_len: usize,
    /// The decoded segments, where they differ from the text of the path.
    decoded: Option<Vec<Box<[u8]>>>,
    /// Length of the part of `forward` that is matched (differs from `path_len` only where a
    /// trailing slash is ignored).
    match_len: usize,
}

/// The form of a path that patterns are compared with.
#[derive(Debug, Clone, Copy)]
pub enum MatchPath<'p> {
    /// Begins with `/`; split at `/`, each segment stands for itself. Nearly every request.
    Plain(&'p str),
    /// The segments decoded, matrix parameters dropped (`/a%2Fb/c` with a kept slash is `["a/b", "c"]`).
    Decoded(&'p [Box<[u8]>]),
}

impl CleanTarget<'_> {
    /// What goes on the wire to the upstream: the cleaned path, and the query as it came.
    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.forward
    }

    /// The cleaned path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.forward[..self.path_len]
    }

    /// What patterns are compared with.
    #[must_use]
    pub fn match_path(&self) -> MatchPath<'_> {
        match &self.decoded {
            None => MatchPath::Plain(&self.forward[..self.match_len]),
            Some(segments) => MatchPath::Decoded(segments),
        }
    }
}

/// Cleans a target in origin form under the rules of the host that it is meant for.
///
/// # Errors
/// [`Rejection`] with `bad_request_target` and what was found where, if the target could be read in two ways.
pub fn clean<'r>(target: &'r str, rules: &PathRules) -> Result<CleanTarget<'r>, Rejection> {
    let _ = (target, rules);
    todo!()
}
