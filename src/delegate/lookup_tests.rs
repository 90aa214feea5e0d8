use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::Timestamp;
use crate::delegate::Told;
use crate::token::issuer::Confers;
use crate::token::vouched::Vouching;

fn claims(userinfo: &str, token_id: Option<&str>) -> Claims {
    let vouching = Vouching {
        confers: Confers::Any,
        admin: false,
        verifies_email: false,
        leeway: 0,
        max_lifetime: 60,
        one_spelling: true,
    };
    let unverified = Unverified { token_id: token_id.map(Box::from), ..Unverified::default() };
    vouching.claims(unverified, userinfo.as_bytes()).unwrap()
}

#[test]
fn t15_a_key_without_its_variable_is_none() {
    let key = |template: &str, token_id| {
        let claims = claims(r#"{"sub": "kc:alice"}"#, token_id);
        KeyTemplate::parse(template).unwrap().key("the-token", &claims, "kc:")
    };
    assert_eq!(key("blacklist:{jti}", Some("a")), Ok("blacklist:a".into()));
    assert!(key("blacklist:{jti}", None).is_err() && key("{jti}", Some("")).is_err());
    assert!(key("x{sid}", Some("a")).is_err() && key("{sub}{sid}", Some("a")).is_err());
    assert_eq!(key("{sub}|{jti}|{token}", Some("{sub}")), Ok("alice|{sub}|the-token".into()), "values are literal");
    let sha256 = key("{token_sha256}", None).unwrap();
    assert!(sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{sha256}");
    assert_eq!(KeyTemplate::default(), KeyTemplate::parse("blacklist:{jti}").unwrap());
}

struct Scripted {
    asked: AtomicUsize,
    answer: Holding,
}

impl Blacklist for Scripted {
    fn holds<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Holding> + Send + 'a>> {
        Box::pin(async {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.answer
        })
    }
}

fn looking(answer: Holding) -> (Arc<Lookup>, Arc<Scripted>) {
    let scripted = Arc::new(Scripted { asked: AtomicUsize::new(0), answer });
    let settings = LookupSettings {
        key: KeyTemplate::default(),
        age: Duration::from_secs(60),
        timeout: Duration::from_secs(10),
        on_silence: OnStale::Deny,
        prefixes: BTreeMap::new(),
    };
    let lookup = Lookup::new(settings, Arc::clone(&scripted) as _, Handle::current(), Arc::default());
    (lookup, scripted)
}

async fn ask(lookup: &Arc<Lookup>) -> Holding {
    let key = lookup.key("t", &claims(r#"{"sub": "a"}"#, Some("j"))).unwrap();
    match lookup.look_up::<Timestamp>(key) {
        LookedUp::Heard(_, heard) => heard.what,
        LookedUp::Asked(id, question) => {
            let mut told = Told::default();
            question.answer(&mut told).await;
            told.blacklist(id).unwrap().what
        }
    }
}

#[tokio::test]
async fn t15_an_answer_is_remembered_and_silence_is_not() {
    for (answer, asked) in [(Ok(true), 1), (Ok(false), 1), (Err(Unreachable), 3)] {
        let (lookup, scripted) = looking(answer);
        for _ in 0..3 {
            assert_eq!(ask(&lookup).await, answer);
        }
        assert_eq!(scripted.asked.load(Ordering::SeqCst), asked, "{answer:?}");
    }
}

#[tokio::test]
async fn equal_questions_are_one_even_if_the_first_asker_goes_away() {
    let (lookup, scripted) = looking(Ok(false));
    let first = tokio::spawn({
        let lookup = Arc::clone(&lookup);
        async move { ask(&lookup).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.abort();
    let others: Vec<_> = (0..100)
        .map(|_| {
            let lookup = Arc::clone(&lookup);
            tokio::spawn(async move { ask(&lookup).await })
        })
        .collect();
    for other in others {
        assert_eq!(other.await.unwrap(), Ok(false));
    }
    assert_eq!(scripted.asked.load(Ordering::SeqCst), 1);
}
