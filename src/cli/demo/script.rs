//! What the demo shows: people, and requests with the answers that they get.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::rbac::RoleKey;
use crate::reason::Reason;
use crate::token::Issuer;
use crate::token::mint::{MintRequest, inspect, mint};

/// Where everything listens.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) gateway: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) oms: SocketAddr,
    /// The control socket, if its path is short enough for one.
    pub(super) socket: Option<PathBuf>,
}

/// Somebody with a token.
#[derive(Debug)]
pub(super) struct Person {
    /// The shell variable that holds the token.
    pub(super) variable: &'static str,
    pub(super) subject: &'static str,
    pub(super) name: &'static str,
    pub(super) role: &'static str,
    pub(super) token: String,
    /// `jti`
    pub(super) token_id: String,
}

impl Person {
    pub(super) fn new(
        issuer: &Issuer,
        variable: &'static str,
        subject: &'static str,
        name: &'static str,
        role: &'static str,
        lifetime: Duration,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let roles = [RoleKey::parse(role)?];
        // Nothing was recorded yet in a folder of this run's own.
        let uv = Some(0);
        let request =
            MintRequest { subject, roles: &roles, name: Some(name), ttl: lifetime, uv, ..MintRequest::default() };
        let token = mint(issuer, &request, now)?;
        let said = inspect(&token, now).map_err(|refused| anyhow::anyhow!(refused.detail.into_owned()))?;
        let token_id = said["claims"]["jti"].as_str().context("the token has no jti")?.to_owned();
        Ok(Self { variable, subject, name, role, token, token_id })
    }
}

/// One curl line and its answer.
#[derive(Debug)]
struct Step {
    /// What it shows, for people.
    shows: &'static str,
    command: String,
    status: u16,
    /// What stands in the answer, besides the status.
    contains: String,
}

/// The whole demonstration.
#[derive(Debug)]
pub(super) struct Script {
    greeting: String,
    addresses: Value,
    people: [Person; 3],
    steps: Vec<Step>,
}

impl Script {
    pub(super) fn new(addresses: &Addresses, people: [Person; 3]) -> Self {
        let (gateway, admin) = (format!("http://{}", addresses.gateway), format!("http://{}", addresses.admin));
        let schema = format!("{gateway}/api/v1/schema");
        let bearer = |person: &Person| format!("-H \"Authorization: Bearer ${}\"", person.variable);
        let [viewer, editor, administrator] = [&people[0], &people[1], &people[2]].map(bearer);
        let author = &people[1];
        let mut steps = vec![
            Step::denied(
                "Nobody in particular is asked for a token:",
                format!("curl -i {schema}"),
                Reason::MissingToken,
            ),
            Step::new(
                "A viewer may read:",
                format!("curl -i {viewer} {schema}"),
                200,
                "\"name\":\"customer\"".to_owned(),
            ),
            Step::denied(
                "but not write, and the answer says which permission is missing (schema:create):",
                format!("curl -i {viewer} --json '{{\"name\":\"order\"}}' {schema}"),
                Reason::PermissionMissing,
            ),
            Step::new(
                "An editor may, and the service, which knows nothing of users, stamps the author:",
                format!("curl -i {editor} --json '{{\"name\":\"order\"}}' {schema}"),
                201,
                format!("\"created_by\":\"{}\",\"created_by_name\":\"{}\"", author.subject, author.name),
            ),
            Step::new(
                "A client that says who it is changes nothing: the author is still the token's:",
                format!(
                    "curl -i {editor} -H 'X-User-Id: ada' -H 'x_user_id: ada' --json '{{\"name\":\"invoice\"}}' {schema}"
                ),
                201,
                format!("\"created_by\":\"{}\"", author.subject),
            ),
            Step::denied(
                "An editor deletes nothing:",
                format!("curl -i {editor} -X DELETE {schema}/1"),
                Reason::PermissionMissing,
            ),
            Step::new(
                "An administrator does:",
                format!("curl -i {administrator} -X DELETE {schema}/1"),
                204,
                String::new(),
            ),
            Step::denied(
                "What no policy lists is denied, even to an administrator:",
                format!("curl -i {administrator} {gateway}/api/v1/secrets"),
                Reason::NoRoute,
            ),
            Step::new(
                "The editor's token is revoked by its id:",
                format!("curl -i {administrator} --json '{{\"jti\":\"{}\"}}' {admin}/api/revocations", author.token_id),
                200,
                "\"propagated\":true".to_owned(),
            ),
            Step::denied(
                "and is refused from the next request on:",
                format!("curl -i {editor} {schema}"),
                Reason::Revoked,
            ),
        ];
        let mut revoked = 1;
        if let Some(socket) = &addresses.socket {
            let call = format!("--json '{{\"subject\":\"{}\"}}' http://localhost/api/revocations", people[0].subject);
            steps.push(Step::new(
                "Who owns the machine needs no token; `doorward revoke --subject vera` says the same to a doorward of your own:",
                format!("curl -i --unix-socket {} {call}", socket.display()),
                200,
                "\"propagated\":true".to_owned(),
            ));
            steps.push(Step::denied(
                "and the viewer is logged out everywhere:",
                format!("curl -i {viewer} {schema}"),
                Reason::Revoked,
            ));
            revoked += 1;
        }
        steps.push(Step::new(
            "Everything was counted:",
            format!("curl -s {admin}/metrics | grep doorward_auth_failures_total"),
            200,
            format!("doorward_auth_failures_total{{reason=\"revoked\"}} {revoked}"),
        ));
        let greeting = format!(
            "doorward demo: everything below runs on this machine only, until Ctrl-C.\n\n  \
             {gateway}  the gateway, with policies/oms.yaml\n  \
             {admin}  the admin listener\n  \
             http://{}  the example service behind the gateway; it has no line of auth code\n",
            addresses.oms
        );
        let addresses = json!({ "gateway": gateway, "admin": admin, "oms": format!("http://{}", addresses.oms) });
        Self { greeting, addresses, people, steps }
    }

    /// For people: paste the lines after `$` into another terminal, from the top.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.greeting)?;
        writeln!(out, "In another terminal, tokens for a viewer, an editor and an administrator, good for an hour:\n")?;
        for person in &self.people {
            writeln!(out, "# {} has {}", person.name, person.role)?;
            writeln!(out, "$ {}={}", person.variable, person.token)?;
        }
        for step in &self.steps {
            writeln!(out, "\n# {}", step.shows)?;
            writeln!(out, "$ {}", step.command)?;
            match step.contains.as_str() {
                "" => writeln!(out, "  → {}", step.status)?,
                contains => writeln!(out, "  → {} … {contains}", step.status)?,
            }
        }
        writeln!(out, "\nEach request is logged below. Ctrl-C ends the demo.\n")
    }

    /// For scripts: addresses, tokens and steps.
    pub(super) fn to_json(&self) -> Value {
        let mut tokens = json!({});
        for (person, who) in self.people.iter().zip(["viewer", "editor", "administrator"]) {
            tokens[who] = person.token.as_str().into();
        }
        let variables: Value =
            self.people.iter().map(|person| (person.variable.to_owned(), Value::from(person.token.as_str()))).collect();
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|step| {
                json!({ "shows": step.shows, "command": step.command, "status": step.status, "contains": step.contains })
            })
            .collect();
        let mut report = self.addresses.clone();
        report["tokens"] = tokens;
        report["variables"] = variables;
        report["steps"] = steps.into();
        report
    }
}

impl Step {
    fn new(shows: &'static str, command: String, status: u16, contains: String) -> Self {
        Self { shows, command, status, contains }
    }

    fn denied(shows: &'static str, command: String, reason: Reason) -> Self {
        Self::new(shows, command, reason.status(), format!("\"reason\":\"{reason}\""))
    }
}
