//! What role data is, in 64 characters, the same in every process that holds the same data (T9).

use aws_lc_rs::digest::{Context, SHA256};

use super::table::{ADMIN_SERVICE, OWN_PERMISSIONS, RoleData};

/// SHA-256 of the data, in lower-case hexadecimal. How a file writes it, and in which order it lists permissions and grants, makes no
/// difference, for it makes none to what anybody holds; the order of tiers does. The permissions of doorward's own calls exist
/// whether they are listed or not.
pub(super) fn fingerprint(data: &RoleData) -> Box<str> {
    let mut digest = Digest(Context::new(&SHA256));
    digest.word("doorward role data 1");
    digest.count(data.permissions.len());
    for (service, codes) in &data.permissions {
        let own = |code: &&str| service.as_str() == ADMIN_SERVICE && OWN_PERMISSIONS.contains(code);
        digest.word(service.as_str());
        digest.set(codes.iter().map(|code| code.as_str()).filter(|code| !own(code)));
    }
    digest.count(data.roles.len());
    for (key, role) in &data.roles {
        digest.word(key.as_str());
        // No key and no service is an empty word.
        digest.word(role.parent.as_ref().map_or("", |parent| parent.as_str()));
        digest.word(role.scope.as_ref().map_or("", |scope| scope.as_str()));
        digest.set(role.permissions.iter().map(|grant| grant.as_str()));
    }
    digest.count(data.tiers.len());
    for (service, tiers) in &data.tiers {
        digest.word(service.as_str());
        digest.count(tiers.len());
        for tier in tiers {
            digest.word(tier.key.as_str());
            digest.set(tier.permissions.iter().map(|grant| grant.as_str()));
        }
    }
    let bytes = digest.0.finish();
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// Every word with its length before it and every list with its own, so that no two data give the same bytes.
struct Digest(Context);

impl Digest {
    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_be_bytes());
    }

    fn word(&mut self, word: &str) {
        self.count(word.len());
        self.0.update(word.as_bytes());
    }

    fn set<'w>(&mut self, words: impl Iterator<Item = &'w str>) {
        let mut words: Vec<&str> = words.collect();
        words.sort_unstable();
        words.dedup();
        self.count(words.len());
        words.into_iter().for_each(|word| self.word(word));
    }
}
