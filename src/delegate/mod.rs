//! What has to be asked elsewhere, since this process cannot know it: who the bearer of a token is and what they may do, where an
//! external user service keeps that (SPEC 5.5), and whether a token stands in a blacklist that another program writes (SPEC 8).
//!
//! An answer is kept for a stated age, equal questions that come at the same time are asked once, and a question once asked goes on
//! whether or not the client that it was first asked for is still there. Where there is no answer there is no access.
//!
//! Must not know: decisions, sockets of its own (the HTTP client and the connection to Redis are handed in), how answers are judged.

pub mod iam;
pub mod lookup;
mod memory;
mod told;

pub use self::iam::{Iam, IamLimits, Known, NoAnswer, PermissionKey, TokenId};
pub use self::lookup::{Blacklist, Holding, KeyTemplate, LookedUp, Lookup, LookupSettings, Unreachable};
pub use self::memory::Heard;
pub use self::told::{Outdated, Question, Told};
