//! What role data is, in 64 characters, the same in every process that holds the same data (T9).

use aws_lc_rs::digest::{Context, SHA256};

use super::code::{PermissionCode, ServiceName};
use super::table::{ADMIN_SERVICE, OWN_PERMISSIONS, RoleData};

/// SHA-256 of the data, in lower-case hexadecimal. How a file writes it, and in which order it lists permissions and grants, makes no
/// difference, for it makes none to what anybody holds; the order of tiers does. The permissions of doorward's own calls exist
/// whether they are listed or not.
pub(super) fn fingerprint(data: &RoleData) -> Box<str> {
    let mut digest = Digest(Context::new(&SHA256));
    digest.word("doorward role data 1");
    let listed = |(service, codes): (&'_ ServiceName, &'_ Vec<PermissionCode>)| {
        let admin = service.as_str() == ADMIN_SERVICE;
        let more = codes.iter().any(|code| !OWN_PERMISSIONS.contains(&code.as_str()));
        !admin || more
    };
    digest.count(data.permissions.iter().filter(|listing| listed(*listing)).count());
    for (service, codes) in data.permissions.iter().filter(|listing| listed(*listing)) {
        let own = |code: &&str| service.as_str() == ADMIN_SERVICE && OWN_PERMISSIONS.contains(code);
        digest.word(service.as_str());
        digest.set(codes.iter().map(PermissionCode::as_str).filter(|code| !own(code)));
    }
    digest.count(data.roles.len());
    for (key, role) in &data.roles {
        digest.word(key.as_str());
        // No key and no service is an empty word.
        digest.word(role.parent.as_ref().map_or("", |parent| parent.as_str()));
        digest.word(role.scope.as_ref().map_or("", |scope| scope.as_str()));
        digest.set(role.permissions.iter().map(super::code::Grant::as_str));
    }
    digest.count(data.tiers.len());
    for (service, tiers) in &data.tiers {
        digest.word(service.as_str());
        digest.count(tiers.len());
        for tier in tiers {
            digest.word(tier.key.as_str());
            digest.set(tier.permissions.iter().map(super::code::Grant::as_str));
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::rbac::{Grant, RoleDefinition, RoleKey, TierDefinition, TierKey};

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn data() -> RoleData {
        let mut data = RoleData::default();
        let code = |text| PermissionCode::parse(text).unwrap();
        let grants = |list: &[&str]| list.iter().map(|text| Grant::parse(text).unwrap()).collect::<Vec<_>>();
        data.permissions.insert(service("oms"), vec![code("order:view"), code("order:edit")]);
        let role = |parent: Option<&str>, list: &[&str]| RoleDefinition {
            parent: parent.map(|key| RoleKey::parse(key).unwrap()),
            scope: None,
            permissions: grants(list),
        };
        data.roles.insert(RoleKey::parse("ROLE_A").unwrap(), role(None, &["order:view", "order:edit"]));
        data.roles.insert(RoleKey::parse("ROLE_B").unwrap(), role(Some("ROLE_A"), &["order:*"]));
        let tier = |key, list: &[&str]| TierDefinition { key: TierKey::parse(key).unwrap(), permissions: grants(list) };
        data.tiers.insert(service("oms"), vec![tier("FREE", &[]), tier("PREMIUM", &["order:edit"])]);
        data
    }

    #[test]
    fn t09_the_same_data_have_one_fingerprint_however_they_are_written() {
        let mut written_otherwise = data();
        written_otherwise.permissions.values_mut().for_each(|codes| codes.reverse());
        written_otherwise.roles.values_mut().for_each(|role| {
            role.permissions.reverse();
            role.permissions.extend_from_within(..);
        });
        assert_eq!(fingerprint(&data()), fingerprint(&written_otherwise));
        let mut with_own = data();
        with_own.add_own_permissions();
        assert_eq!(fingerprint(&with_own), fingerprint(&data()));
        // Computed by another program from the same words: a gateway of another version has to find the same.
        assert_eq!(&*fingerprint(&data()), "a2568f428aa59ba350800beaebcaf5a3207741421cd2ca446c93f40fc8ed9cd2");
    }

    #[test]
    fn t09_other_data_have_another() {
        let key = |text| RoleKey::parse(text).unwrap();
        let changes: [&dyn Fn(&mut RoleData); 8] = [
            &|data| data.permissions.get_mut("oms").unwrap().truncate(1),
            &|data| drop(data.roles.remove("ROLE_B")),
            &|data| data.roles.get_mut("ROLE_A").unwrap().permissions.truncate(1),
            &|data| data.roles.get_mut("ROLE_B").unwrap().parent = None,
            &|data| data.roles.get_mut("ROLE_A").unwrap().scope = Some(service("oms")),
            &|data| data.tiers.get_mut("oms").unwrap().reverse(),
            &|data| data.tiers.get_mut("oms").unwrap()[0].permissions = data.roles["ROLE_A"].permissions.clone(),
            &|data| drop(data.roles.insert(key("ROLE_C"), RoleDefinition::default())),
        ];
        let mut seen = std::collections::BTreeSet::from([fingerprint(&data())]);
        for change in changes {
            let mut changed = data();
            change(&mut changed);
            assert!(seen.insert(fingerprint(&changed)), "{changed:?}");
        }
    }
}
