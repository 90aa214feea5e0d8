//! Somebody with the right to write spoils what publishers tell one another in Redis. Nobody has signed it, so nobody is to be told
//! anything for its sake; and what is spoilt once is mended without anybody's help (T2, T11).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fleet::{Fleet, RECOVERY, fleet};
use super::forged::{CHANGES, HEARTBEATS, newest};
use crate::harness::eventually;
use crate::harness::redis::Redis;

const HEAD: &str = "{doorward}:head";
const MANIFEST: &str = "{doorward}:manifest";
const HIGHEST: &str = "18446744073709551615";

fn alone(redis: &Redis) -> Fleet {
    let fleet = fleet(&[&redis.url()]).start();
    published(&fleet, redis, "first");
    fleet
}

/// Whether the stream has this change.
fn is_there(redis: &Redis, number: &Value) -> bool {
    let id = format!("{number}-0");
    let entries = redis.try_command(&["XRANGE", CHANGES, &id, &id]);
    entries.is_ok_and(|entries| entries.items().len() == 1)
}

/// Revokes a token again and again until that is said to be published. Whenever it is said, it has to be true.
fn published(fleet: &Fleet, redis: &Redis, id: &str) -> u64 {
    eventually(&format!("{id} is published"), RECOVERY, || {
        let (status, answer) = fleet.revoke(&json!({ "jti": id }));
        if status == 503 {
            return None;
        }
        let number = &answer["number"];
        let is_said = (status, &answer["propagated"]) == (200, &json!(true));
        assert!(!is_said || is_there(redis, number), "{answer} is said to be published, and is not");
        is_said.then(|| number.as_u64().unwrap())
    })
}

/// What the newest heartbeat says.
fn heartbeat(redis: &Redis) -> Option<Value> {
    let entries = redis.try_command(&["XREVRANGE", HEARTBEATS, "+", "-", "COUNT", "1"]).ok()?;
    let line = entries.items().first()?.items()[1].words().get(1)?.clone();
    serde_json::from_str(&line[line.find('{')?..]).ok()
}

/// Waits for a heartbeat of what is published now: up to this number, and no further than anything was ever recorded.
fn beats(redis: &Redis, number: u64) {
    let begun = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    eventually("a heartbeat", RECOVERY, || {
        let said = heartbeat(redis)?;
        let n = said["n"].as_u64().unwrap();
        if said["at"].as_u64().unwrap() <= begun {
            return None;
        }
        assert!(n <= number, "{said} speaks of more than was ever recorded");
        assert!(said["epoch"].as_u64().unwrap() < 1 << 52, "{said}");
        (n == number).then_some(())
    });
}

#[test]
fn t11_a_number_that_nobody_has_signed_publishes_nothing() {
    let redis = Redis::start();
    let mut fleet = alone(&redis);
    for (round, field) in ["9007199254740000", HIGHEST, "9007199254740000"].into_iter().enumerate() {
        redis.command(&["HSET", HEAD, "n", field]);
        if round == 2 {
            redis.command(&["HSET", HEAD, "base", field]);
        }
        // Long enough for it to be believed.
        std::thread::sleep(Duration::from_millis(1_500));
        let number = published(&fleet, &redis, &format!("running-{round}"));
        beats(&redis, number);
        // At a start nothing but Redis tells how far it is published.
        fleet.gateways[0].kill9();
        redis.command(&["HSET", HEAD, "n", field]);
        fleet.gateways[0].start_again();
        let number = published(&fleet, &redis, &format!("started-{round}"));
        beats(&redis, number);
    }
}

#[test]
fn t11_a_number_is_not_believed_while_changes_are_on_their_way() {
    let redis = Redis::start();
    let fleet = alone(&redis);
    // What is revoked at this moment would be passed over as published already.
    for round in 0..200 {
        redis.command(&["HSET", HEAD, "n", "9007199254740000", "base", "9007199254740000"]);
        let (status, answer) = fleet.revoke(&json!({ "jti": format!("t-{round}") }));
        let is_said = (status, &answer["propagated"]) == (200, &json!(true));
        assert!(!is_said || is_there(&redis, &answer["number"]), "{answer} is said to be published, and is not");
    }
    let number = published(&fleet, &redis, "last");
    beats(&redis, number);
}

#[test]
fn t02_one_bad_write_stops_nothing_for_good() {
    let redis = Redis::start();
    let fleet = alone(&redis);
    let last = format!("{HIGHEST}-{HIGHEST}");
    let writes: &[&[&str]] = &[
        &["HDEL", HEAD, "base"],
        &["HDEL", HEAD, "epoch"],
        &["HSET", HEAD, "truth", "x"],
        &["HSET", HEAD, "n", "x"],
        &["HSET", HEAD, "length", "x"],
        &["HSET", HEAD, "epoch", "007"],
        &["HSET", HEAD, "epoch", HIGHEST],
        &["HSET", HEAD, "n", "nan", "base", "nan", "length", "nan"],
        &["EVAL", r"redis.call('HSET', KEYS[1], 'truth', '\255')", "1", HEAD],
        &["XADD", HEARTBEATS, &last, "a", "b"],
        &["XADD", CHANGES, &last, "a", "b"],
        &["XSETID", CHANGES, &last],
        &["EVAL", "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'x')", "1", HEAD],
        &["EVAL", "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'x')", "1", HEARTBEATS],
        &["EVAL", "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')", "1", MANIFEST],
        &["SET", MANIFEST, "x"],
    ];
    for (round, write) in writes.iter().enumerate() {
        let begun = Instant::now();
        redis.command(write);
        // Found by a heartbeat, with nothing to append.
        std::thread::sleep(Duration::from_millis(1_200));
        let number = published(&fleet, &redis, &format!("t-{round}"));
        beats(&redis, number);
        eprintln!("{write:?} was mended within {:?}", begun.elapsed());
    }
    let said = fleet.gateways[0].stdout();
    assert!(said.contains("what somebody made of doorward's keys"), "{said}");
    assert!(said.contains("written anew from the truth"), "{said}");
}

/// Puts a line that nobody has signed in the place of the newest change; the stream is as long as before.
fn replace_last_change(redis: &Redis) {
    let entries = redis.command(&["XREVRANGE", CHANGES, "+", "-", "COUNT", "1"]);
    let id = entries.items()[0].items()[0].text();
    redis.command(&["XDEL", CHANGES, &id]);
    redis.command(&["XADD", CHANGES, &id.replace("-0", "-1"), "change", "garbage"]);
}

/// A gateway that starts, with nothing of its own, has everything and knows it.
fn a_gateway_starts(fleet: &mut Fleet, gateway: usize, patience: Duration) {
    fleet.gateways[gateway].kill9();
    std::fs::remove_dir_all(fleet.gateways[gateway].path("data/replica")).unwrap();
    fleet.gateways[gateway].start_again();
    eventually("a gateway that starts is ready", patience, || fleet.gateways[gateway].is_ready().then_some(()));
}

#[test]
fn t10_a_stream_that_was_changed_in_place_is_found_at_the_start_and_while_running() {
    let redis = Redis::start();
    let url = redis.url();
    let mut fleet = fleet(&[&url, &url]).start();
    published(&fleet, &redis, "t-1");
    published(&fleet, &redis, "t-2");
    fleet.gateways[0].kill9();
    replace_last_change(&redis);
    fleet.gateways[0].start_again();
    a_gateway_starts(&mut fleet, 1, RECOVERY);
    // The last change is gone and nothing stands in its place.
    fleet.gateways[0].kill9();
    let entries = redis.command(&["XREVRANGE", CHANGES, "+", "-", "COUNT", "1"]);
    redis.command(&["XDEL", CHANGES, &entries.items()[0].items()[0].text()]);
    redis.command(&["HINCRBY", HEAD, "length", "-1"]);
    fleet.gateways[0].start_again();
    a_gateway_starts(&mut fleet, 1, RECOVERY);
    // Nobody but a gateway that starts would notice, and it cannot tell.
    replace_last_change(&redis);
    a_gateway_starts(&mut fleet, 1, Duration::from_secs(100));
    fleet.all_refuse(&fleet.token("a", "s", "t-2"));
    let rewrites = fleet.gateways[0].metric("doorward_publication_rewrites_total", &["cause=\"broken\""]);
    assert_eq!(rewrites, 2.0, "once at its second start and once since");
}

/// Revokes until the folder has a segment and Redis has it too; gives its name.
fn segment(fleet: &Fleet, redis: &Redis) -> String {
    std::thread::scope(|scope| {
        for caller in 0..16 {
            scope.spawn(move || {
                for call in 0..325 {
                    // A control plane that stood still for `max_staleness` denies until it has looked again.
                    eventually("it is taken", RECOVERY, || {
                        let (status, answer) = fleet.revoke(&json!({ "jti": format!("many-{caller}-{call}") }));
                        assert!(matches!(status, 200 | 202 | 503), "{status} {answer}");
                        (status != 503).then_some(())
                    });
                }
            });
        }
    });
    eventually("a manifest with a segment", RECOVERY, || {
        let line = redis.command(&["GET", MANIFEST]).text();
        let manifest: Value = serde_json::from_str(&line[line.find('{')?..]).ok()?;
        Some(manifest["segments"][0]["sha256"].as_str()?.to_owned())
    })
}

#[test]
fn t10_a_segment_that_was_changed_in_place_is_found_and_one_of_the_folder_is_told() {
    let redis = Redis::start();
    let url = redis.url();
    let mut fleet = fleet(&[&url, &url]).start();
    let name = segment(&fleet, &redis);
    let key = format!("{{doorward}}:segment:{name}");
    let change = || redis.command(&["SETRANGE", &key, "100", "#"]);
    let bad = fleet.token("a", "s", "many-0-0");
    // At a start it is read soon.
    fleet.gateways[0].kill9();
    change();
    fleet.gateways[0].start_again();
    a_gateway_starts(&mut fleet, 1, RECOVERY);
    fleet.all_refuse(&bad);
    // And about once a minute.
    change();
    a_gateway_starts(&mut fleet, 1, Duration::from_secs(100));
    fleet.all_refuse(&bad);
    // Where the folder's own is broken nothing can be mended, and that is told.
    let file = fleet.gateways[0].path(&format!("data/revocations/segments/{name}"));
    let good = std::fs::read(&file).unwrap();
    let mut other = good.clone();
    other[100] = b'#';
    std::fs::write(&file, &other).unwrap();
    redis.flush();
    eventually("it is told", RECOVERY, || {
        let said = fleet.gateways[0].stdout();
        let told = said.lines().filter(|line| line.contains("revocations cannot be published"));
        let told: Vec<_> = told.filter(|line| line.contains("was changed on disk")).collect();
        (!told.is_empty()).then(|| assert_eq!(told.len(), 1, "once: {told:?}"))
    });
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fleet.gateways[0].stdout().matches("was changed on disk").count(), 1, "and not again and again");
    std::fs::write(&file, &good).unwrap();
    published(&fleet, &redis, "after");
    fleet.all_refuse(&bad);
}

#[test]
fn t11_a_signed_change_of_another_truth_logs_nobody_out() {
    let redis = Redis::start();
    let mut fleet = alone(&redis);
    let (data, aside) = (fleet.gateways[0].path("data"), fleet.gateways[0].path("aside"));
    let key = std::fs::read(data.join("publication-key.jwks.json")).unwrap();
    // For a while another folder was in use with the same key, or still is elsewhere.
    fleet.gateways[0].kill9();
    std::fs::rename(&data, &aside).unwrap();
    std::fs::create_dir(&data).unwrap();
    write_secret(&data.join("publication-key.jwks.json"), &key);
    redis.flush();
    fleet.gateways[0].start_again();
    published(&fleet, &redis, "other");
    let other = newest(&redis, CHANGES);
    fleet.gateways[0].kill9();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    redis.flush();
    fleet.gateways[0].start_again();
    let good = fleet.issuer.viewer();
    fleet.all_accept(&good);
    // Its number is above all of ours.
    fleet.gateways[0].kill9();
    redis.command(&["XADD", CHANGES, "*", "change", &other]);
    fleet.gateways[0].start_again();
    published(&fleet, &redis, "t-1");
    fleet.all_accept(&good);
}

fn write_secret(path: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What stands in Redis but for heartbeats: who publishes, how far, and how much.
fn standing(redis: &Redis) -> (Vec<String>, String, bool) {
    let head = redis.command(&["HMGET", HEAD, "epoch", "n", "length"]).words();
    let changes = format!("{:?}", redis.command(&["XLEN", CHANGES]));
    (head, changes, redis.command(&["XRANGE", HEARTBEATS, "-", "+"]).items().is_empty())
}

#[test]
fn t02_a_full_redis_is_an_outage_and_nothing_is_deleted_for_it() {
    let redis = Redis::start();
    let fleet = alone(&redis);
    let before = standing(&redis);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let (status, kept) = fleet.revoke(&json!({ "jti": "while-full" }));
    assert_eq!((status, &kept["propagated"]), (202, &json!(false)));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(standing(&redis), before);
    let said = || fleet.gateways[0].stdout();
    eventually("it is told", RECOVERY, || {
        let said = said();
        (said.contains("revocations cannot be published through Redis") && said.contains("OOM")).then_some(())
    });
    assert!(!said().contains("written anew"), "{}", said());
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("it is published once there is room", RECOVERY, || is_there(&redis, &kept["number"]).then_some(()));
    let number = published(&fleet, &redis, "after");
    beats(&redis, number);
    assert_eq!(standing(&redis).0[0], before.0[0], "the epoch: it was appended");
}

#[test]
fn t02_what_would_be_written_anew_in_a_full_redis_stays_until_there_is_room() {
    let redis = Redis::start();
    let fleet = alone(&redis);
    let before = standing(&redis);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    redis.command(&["DEL", MANIFEST]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(standing(&redis), before);
    assert_eq!(fleet.revoke(&json!({ "jti": "while-full" })).0, 202);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let number = published(&fleet, &redis, "after");
    beats(&redis, number);
}
