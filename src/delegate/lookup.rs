//! A blacklist that another program writes (SPEC 8, `mode = "lookup"`): a token whose key is there has been revoked.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::memory::{Flight, Heard, Memory, at_once};
use super::told::Question;
use crate::revocation::freshness::OnStale;
use crate::telemetry::{DelegateAnswer, DelegateMetrics, DelegateQuestion};
use crate::token::Claims;
use crate::token::vouched::Unverified;

/// Most answers that are remembered at a time; each is good for a second or so.
const MOST_ANSWERS: u64 = 200_000;

/// For whoever keeps its own time.
const GRACE: Duration = Duration::from_millis(100);

/// The blacklist could not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the blacklist cannot be asked")]
pub struct Unreachable;

/// Whether the blacklist holds a key.
pub type Holding = Result<bool, Unreachable>;

/// Where the blacklist is. The connection belongs to another room, so it is handed in.
pub trait Blacklist: Send + Sync + 'static {
    /// Whether there is something under this key, whatever it is. The key may hold a token, and is for no log. It keeps its own time,
    /// which is at most twice the lookup's `timeout`.
    fn holds<'a>(&'a self, key: &'a str) -> Pin<Box<dyn Future<Output = Holding> + Send + 'a>>;
}

/// A key with its variables, such as `blacklist:{jti}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    /// As it is written.
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    TokenId,
    Token,
    TokenSha256,
    Subject,
    Session,
}

const VARIABLES: [(&str, Variable); 5] = [
    ("jti", Variable::TokenId),
    ("token", Variable::Token),
    ("token_sha256", Variable::TokenSha256),
    ("sub", Variable::Subject),
    ("sid", Variable::Session),
];

impl Default for KeyTemplate {
    /// `blacklist:{jti}`.
    fn default() -> Self {
        let parts = vec![Part::Text("blacklist:".into()), Part::Variable(Variable::TokenId)];
        Self { text: "blacklist:{jti}".into(), parts }
    }
}

impl KeyTemplate {
    /// Reads a template. Braces are for variables only.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return Err("has a `{` without its `}`".into());
            };
            let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                return Err(format!("has the unknown variable {{{name}}}"));
            };
            parts.push(Part::Text(before.into()));
            parts.push(Part::Variable(*variable));
            rest = behind;
        }
        parts.push(Part::Text(rest.into()));
        if parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
            return Err("has a `}` without its `{`".into());
        }
        if !parts.iter().any(|part| matches!(part, Part::Variable(_))) {
            return Err("has no variable, so it would say the same of every token".into());
        }
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self { text: text.into(), parts })
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a token is found by its text: then another spelling of the same token is another one.
    #[must_use]
    pub fn is_by_text(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(Variable::Token | Variable::TokenSha256)))
    }

    /// The key of a token: values stand in it literally. A variable that the token lacks, or that is empty, makes it none (T15):
    /// `blacklist:` would be the key of every such token.
    fn key(&self, token: &str, claims: &Claims, prefix: &str) -> Result<String, &'static str> {
        let mut key = String::with_capacity(self.text.len() + 64);
        for part in &self.parts {
            let before = key.len();
            let lacking = match part {
                Part::Text(text) => {
                    key.push_str(text);
                    continue;
                }
                Part::Variable(Variable::TokenId) => {
                    key.push_str(claims.token_id.as_deref().unwrap_or_default());
                    "the token has no `jti`, by which it could be seen whether it has been revoked"
                }
                Part::Variable(Variable::Token) => {
                    key.push_str(token);
                    "there is no token"
                }
                Part::Variable(Variable::TokenSha256) => {
                    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
                        let _ = fmt::Write::write_fmt(&mut key, format_args!("{byte:02x}"));
                    }
                    "there is no token"
                }
                Part::Variable(Variable::Subject) => {
                    // The other program knows nothing of prefixes.
                    key.push_str(claims.subject.strip_prefix(prefix).unwrap_or(&claims.subject));
                    "the token has no subject, by which it could be seen whether it has been revoked"
                }
                Part::Variable(Variable::Session) => {
                    // A foreign token's session is believed for this alone: it can only turn against its bearer.
                    match claims.session.as_deref() {
                        Some(session) => key.push_str(session),
                        None => key.push_str(Unverified::read(token).session.as_deref().unwrap_or_default()),
                    }
                    "the token has no `sid`, by which it could be seen whether it has been revoked"
                }
            };
            if key.len() == before {
                return Err(lacking);
            }
        }
        Ok(key)
    }
}

/// A key, as answers about it are found: it may hold a token, so it is not kept itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 32]);

impl KeyId {
    fn of(key: &str) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(id)
    }
}

/// What a blacklist is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupSettings {
    /// The key.
    pub key: KeyTemplate,
    /// How old an answer may be.
    pub age: Duration,
    /// How long a question may take.
    pub timeout: Duration,
    /// What becomes of a request for which there is no answer.
    pub on_silence: OnStale,
    /// What stands before the subjects of each issuer, by its name.
    pub prefixes: BTreeMap<Arc<str>, Box<str>>,
}

/// The blacklist, asked by tasks of one runtime.
pub struct Lookup {
    settings: LookupSettings,
    blacklist: Arc<dyn Blacklist>,
    runtime: Handle,
    answers: Arc<Memory<KeyId, Holding>>,
    count: Arc<DelegateMetrics>,
}

/// What is known of a token.
pub enum LookedUp<E> {
    /// An answer that is not too old.
    Heard(KeyId, Heard<Holding>),
    /// Nothing; it has been asked.
    Asked(KeyId, Question<E>),
}

impl Lookup {
    /// Asks `blacklist`, on `runtime`.
    #[must_use]
    pub fn new(
        settings: LookupSettings,
        blacklist: Arc<dyn Blacklist>,
        runtime: Handle,
        count: Arc<DelegateMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self { settings, blacklist, runtime, answers: Memory::new(MOST_ANSWERS, |_, _| 1), count })
    }

    /// What becomes of a request for which there is no answer.
    #[must_use]
    pub fn on_silence(&self) -> OnStale {
        self.settings.on_silence
    }

    /// A request goes on without an answer.
    pub fn goes_on_unanswered(&self) {
        self.count.went_on_unanswered();
    }

    /// The key by which a token is looked for.
    ///
    /// # Errors
    /// What the token lacks for it.
    pub fn key(&self, token: &str, claims: &Claims) -> Result<(KeyId, String), &'static str> {
        let prefix = self.settings.prefixes.get(&claims.issuer).map_or("", |prefix| &**prefix);
        let key = self.settings.key.key(token, claims, prefix)?;
        Ok((KeyId::of(&key), key))
    }

    /// Whether the blacklist holds a key, as a question to be asked together with others.
    pub fn look_up_again<E>(self: &Arc<Self>, (id, key): (KeyId, String)) -> Question<E> {
        match self.look_up((id, key)) {
            LookedUp::Heard(id, heard) => Question::blacklist(id, at_once(heard)),
            LookedUp::Asked(_, question) => question,
        }
    }

    /// Whether the blacklist holds a key: what is remembered, or what will be answered.
    #[must_use]
    pub fn look_up<E>(self: &Arc<Self>, (id, key): (KeyId, String)) -> LookedUp<E> {
        if let Some(heard) = self.answers.recall(&id) {
            return LookedUp::Heard(id, heard);
        }
        match self.answers.fly(&id) {
            Flight::Known(heard) => LookedUp::Heard(id, heard),
            Flight::Joined(receiver) => {
                self.count.coalesced(DelegateQuestion::Lookup);
                LookedUp::Asked(id, Question::blacklist(id, receiver))
            }
            Flight::Begun(receiver, landing) => {
                let this = Arc::clone(self);
                self.runtime.spawn(async move {
                    let asked = Instant::now();
                    let open = this.count.open(DelegateQuestion::Lookup, usize::MAX);
                    let held = timeout(this.settings.timeout * 2 + GRACE, this.blacklist.holds(&key)).await;
                    let held = held.unwrap_or(Err(Unreachable));
                    drop(open);
                    let (answer, age) = match held {
                        Ok(true) => (DelegateAnswer::Rejected, this.settings.age),
                        Ok(false) => (DelegateAnswer::Answered, this.settings.age),
                        Err(Unreachable) => (DelegateAnswer::Unavailable, Duration::ZERO),
                    };
                    this.count.answered(DelegateQuestion::Lookup, answer, asked.elapsed());
                    landing.land(Heard::new(held, asked, age));
                });
                LookedUp::Asked(id, Question::blacklist(id, receiver))
            }
        }
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "lookup_tests.rs"]
mod tests;
