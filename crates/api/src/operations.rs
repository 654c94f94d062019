//! The operations of the API, each once: the hub routes by this table, the document is made from
//! it, and the client asks by it.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::approvals::{Approval, ApprovalQuery, No, Yes};
use crate::events::Follow;
use crate::ids::{ApprovalId, NoId, PathId, PodTaskId, RunnerName, SecretName, SessionId, TaskId, TokenId};
use crate::open::Fields;
use crate::page::{NoQuery, Page};
use crate::pods::{Messages, NewInput, NewPodTask, PodRunners, PodTask, PodTaskFilter, Registration};
use crate::problem::Code;
use crate::runners::{Runner, RunnerChange, RunnerFilter};
use crate::secrets::{NewSecret, Secret, Secrets};
use crate::states::Role;
use crate::tasks::{NewTask, Task, TaskFilter, Wait};
use crate::tokens::{Enrolment, IssuedToken, NewToken, Token};

/// The largest body of a task: a `write` of 32 MiB in base64, and room.
pub const MAX_BODY: usize = 48 << 20;
/// The largest body of what is no task.
pub const MAX_SMALL_BODY: usize = 64 * 1024;

/// The largest body of a yes: a line that stands for another is at most 64 KiB.
pub const MAX_BODY_OF_YES: usize = 192 * 1024;

/// The ids of runners as cursors of pages.
type RunnerPage = Page<Runner, crate::ids::RunnerId>;

/// Methods of HTTP that the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Method {
    Get,
    Post,
    Patch,
    Delete,
}

impl Method {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Who has no token as well.
    Anybody,
    /// A good token of any role.
    AnyToken,
    /// A token whose role reaches so far.
    Needs(Role),
}

/// What is sent as a body, or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// There is no body.
    Nothing,
    /// One JSON document, of the type that the operation names.
    Json,
    /// Server-sent events.
    Events,
}

/// What there is to know about an operation beside its types.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name in the document, which clients are generated from.
    pub id: &'static str,
    /// Its method.
    pub method: Method,
    /// Its path below `/api/v1`, with `{id}` for the resource.
    pub path: &'static str,
    /// What it belongs to.
    pub tag: &'static str,
    /// Lines of its description; the first one is its summary.
    pub doc: &'static [&'static str],
    /// Who may ask.
    pub access: Access,
    /// The status of its answer.
    pub status: u16,
    /// The answer in words.
    pub answer: &'static str,
    /// The largest body that it takes; 0 for none.
    pub max_body: usize,
    /// What the answer holds.
    pub content: Content,
    /// The codes of its errors beyond those that [`About::codes`] adds.
    pub own_codes: &'static [Code],
}

impl About {
    /// The codes of all its errors.
    pub fn codes(&self) -> Vec<Code> {
        use Code::{
            BadBody, BadJson, BadPath, BadQuery, Busy, ExpiredToken, Forbidden, IncompleteBody, Internal,
            NoToken, RevokedToken, StoreFailed, TooLarge, TooManyTokens, UnknownField, UnknownParameter,
            UnknownToken,
        };
        let mut codes = vec![BadQuery, UnknownParameter];
        if self.path.contains("{id}") {
            codes.push(BadPath);
        }
        if self.access != Access::Anybody {
            codes.extend([
                NoToken,
                UnknownToken,
                RevokedToken,
                ExpiredToken,
                TooManyTokens,
                StoreFailed,
                Internal,
            ]);
        }
        if matches!(self.access, Access::Needs(_)) {
            codes.push(Forbidden);
        }
        if self.max_body > 0 {
            codes.extend([BadJson, BadBody, UnknownField, IncompleteBody, TooLarge, Busy]);
        }
        codes.extend(self.own_codes);
        codes.sort_by_key(|code| (code.status(), code.as_str()));
        codes.dedup();
        codes
    }
}

/// An operation of the API.
pub trait Operation: 'static {
    /// All about it.
    const ABOUT: About;
    /// What its path names.
    type Id: PathId + JsonSchema + Send;
    /// Its query.
    type Query: Serialize + DeserializeOwned + Default + JsonSchema + Send;
    /// Its body; `()` for none.
    type Body: Serialize + DeserializeOwned + JsonSchema + Send;
    /// Its answer; `()` where it is no JSON.
    type Answer: Serialize + DeserializeOwned + JsonSchema + Send;
}

/// Does something with each operation.
pub trait Visitor {
    /// Is told one operation.
    fn visit<O: Operation>(&mut self);
}

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident = $id:literal: $method:ident $path:literal, $tag:literal, $access:expr,
            id $ident:ty, query $query:ty, body $body:ty [$max:expr],
            $status:literal $content:ident $answer:ty = $words:literal, $codes:expr;
    )+) => {
        $(
            $(#[doc = $doc])*
            #[derive(Debug, Clone, Copy)]
            pub struct $name;

            impl Operation for $name {
                const ABOUT: About = About {
                    id: $id,
                    method: Method::$method,
                    path: $path,
                    tag: $tag,
                    doc: &[$($doc),*],
                    access: $access,
                    status: $status,
                    answer: $words,
                    max_body: $max,
                    content: Content::$content,
                    own_codes: $codes,
                };
                type Id = $ident;
                type Query = $query;
                type Body = $body;
                type Answer = $answer;
            }
        )+

        /// Visits every operation, in the order of the table.
        pub fn visit_all(visitor: &mut impl Visitor) {
            $(visitor.visit::<$name>();)+
        }
    };
}

const VIEWER: Access = Access::Needs(Role::Viewer);
const OPERATOR: Access = Access::Needs(Role::Operator);
const APPROVER: Access = Access::Needs(Role::Approver);
const ADMIN: Access = Access::Needs(Role::Admin);
const ENROLL: Access = Access::Needs(Role::Enroll);

operations! {
    /// Submits a task.
    ///
    /// It is answered when the task is on disk, or with `wait_s` when it is over. A request whose
    /// answer was lost is repeated safely with the same `idempotency_key`.
    SubmitTask = "submit_task": Post "/tasks", "tasks", OPERATOR,
        id NoId, query Wait, body NewTask [MAX_BODY],
        202 Json Task = "The task.", &[Code::InvalidField, Code::KeyReused];
    /// Lists tasks of all kinds, newest first: commands, agents and workflows.
    ///
    /// Long arguments are shortened and results left out: both are at the task's own address.
    ListTasks = "list_tasks": Get "/tasks", "tasks", VIEWER,
        id NoId, query TaskFilter, body () [0],
        200 Json Page<Task, TaskId> = "A page of tasks.", &[];
    /// Shows a task with its results.
    GetTask = "get_task": Get "/tasks/{id}", "tasks", VIEWER,
        id TaskId, query Wait, body () [0],
        200 Json Task = "The task.", &[Code::NoSuchTask];
    /// Cancels the runs of a task that are not over.
    ///
    /// A run ends when its runner says so, at the latest after 30 s. A task that is over stays as
    /// it is.
    CancelTask = "cancel_task": Post "/tasks/{id}/cancel", "tasks", OPERATOR,
        id TaskId, query NoQuery, body () [0],
        202 Json Task = "The task as it is now.", &[Code::NoSuchTask];
    /// Streams what a task's commands write and which states its runs reach.
    ///
    /// The events are `output`, `state`, `gap` (output is missing) and, last, `end`; of an agent or a
    /// workflow `event` is what its task runner says. The header `Last-Event-ID` resumes behind that event, without a gap or a repetition.
    TaskEvents = "task_events": Get "/tasks/{id}/events", "tasks", VIEWER,
        id TaskId, query Follow, body () [0],
        200 Events () = "Server-sent events.", &[Code::NoSuchTask, Code::BadEventId];
    /// Lists approvals, newest first: what waits for a person's yes, and what was said.
    ListApprovals = "list_approvals": Get "/approvals", "approvals", VIEWER,
        id NoId, query ApprovalQuery, body () [0],
        200 Json Page<Approval, ApprovalId> = "A page of approvals.", &[];
    /// Shows an approval.
    GetApproval = "get_approval": Get "/approvals/{id}", "approvals", VIEWER,
        id ApprovalId, query NoQuery, body () [0],
        200 Json Approval = "The approval.", &[Code::NoSuchApproval];
    /// Says yes to what an approval shows.
    ///
    /// It starts when as many people as its rule wants have said so. Who asked for it cannot. With `command` another
    /// line stands for it, which is judged anew, and which its writer cannot say yes to.
    Approve = "approve": Post "/approvals/{id}/approve", "approvals", APPROVER,
        id ApprovalId, query NoQuery, body Yes [MAX_BODY_OF_YES],
        200 Json Approval = "The approval as it is now.",
        &[Code::NoSuchApproval, Code::OwnRequest, Code::AlreadyDecided, Code::InvalidField];
    /// Says no: what was asked for ends as denied.
    Deny = "deny": Post "/approvals/{id}/deny", "approvals", APPROVER,
        id ApprovalId, query NoQuery, body No [MAX_SMALL_BODY],
        200 Json Approval = "The approval as it is now.", &[Code::NoSuchApproval, Code::AlreadyDecided, Code::InvalidField];
    /// Streams approvals as they come and change.
    ///
    /// The events are `approval`, with the approval as it is then, and `reset`: some may have been missed, at the
    /// beginning too, so read the list. They have no ids.
    ApprovalEvents = "approval_events": Get "/approval-events", "approvals", VIEWER,
        id NoId, query NoQuery, body () [0],
        200 Events () = "Server-sent events.", &[];
    /// Lists runners, connected or not, by id.
    ListRunners = "list_runners": Get "/runners", "runners", VIEWER,
        id NoId, query RunnerFilter, body () [0],
        200 Json RunnerPage = "A page of runners.", &[];
    /// Shows a runner.
    GetRunner = "get_runner": Get "/runners/{id}", "runners", VIEWER,
        id RunnerName, query NoQuery, body () [0],
        200 Json Runner = "The runner.", &[Code::NoSuchRunner, Code::AmbiguousName];
    /// Sets a runner's labels, the name that people see, or gives it no new work.
    ChangeRunner = "change_runner": Patch "/runners/{id}", "runners", ADMIN,
        id RunnerName, query NoQuery, body RunnerChange [MAX_SMALL_BODY],
        200 Json Runner = "The runner.", &[Code::NoSuchRunner, Code::AmbiguousName, Code::InvalidField];
    /// Forgets a runner: its connection, what waits for it, and its token unless that is a fleet's.
    RemoveRunner = "remove_runner": Delete "/runners/{id}", "runners", ADMIN,
        id RunnerName, query NoQuery, body () [0],
        204 Nothing () = "The runner is gone.", &[Code::NoSuchRunner, Code::AmbiguousName];
    /// Makes a token.
    CreateToken = "create_token": Post "/tokens", "tokens", ADMIN,
        id NoId, query NoQuery, body NewToken [MAX_SMALL_BODY],
        201 Json IssuedToken = "The token with its secret, shown this once.", &[Code::InvalidField, Code::NameTaken];
    /// Lists all tokens, without their secrets.
    ListTokens = "list_tokens": Get "/tokens", "tokens", ADMIN,
        id NoId, query NoQuery, body () [0],
        200 Json Page<Token, TokenId> = "The tokens; there is no next page.", &[];
    /// Revokes a token, and ends what hangs on it.
    RevokeToken = "revoke_token": Delete "/tokens/{id}", "tokens", ADMIN,
        id TokenId, query NoQuery, body () [0],
        204 Nothing () = "The token is revoked.", &[Code::NoSuchToken, Code::LastAdmin];
    /// Exchanges a one-time enrolment token for a runner's token.
    Enroll = "enroll": Post "/enroll", "tokens", ENROLL,
        id NoId, query NoQuery, body Enrolment [MAX_SMALL_BODY],
        201 Json IssuedToken = "The runner's token.", &[Code::InvalidField, Code::NameTaken, Code::UsedToken];
    /// Shows the token that asks.
    Me = "me": Get "/me", "tokens", Access::AnyToken,
        id NoId, query NoQuery, body () [0],
        200 Json Token = "The token.", &[];
    /// Submits an agent or a workflow to the pool of task runners.
    SubmitPodTask = "submit_pod_task": Post "/pods/tasks", "pods", OPERATOR,
        id NoId, query NoQuery, body NewPodTask [MAX_BODY],
        202 Json PodTask = "The task, which is on disk.", &[Code::InvalidField, Code::KeyReused];
    /// Lists agents and workflows, newest first, without their configs.
    ListPodTasks = "list_pod_tasks": Get "/pods/tasks", "pods", VIEWER,
        id NoId, query PodTaskFilter, body () [0],
        200 Json Page<PodTask, PodTaskId> = "A page of tasks.", &[];
    /// Shows an agent or a workflow; operators see its config.
    GetPodTask = "get_pod_task": Get "/pods/tasks/{id}", "pods", VIEWER,
        id PodTaskId, query NoQuery, body () [0],
        200 Json PodTask = "The task.", &[Code::NoSuchTask];
    /// Wishes that an agent or a workflow end.
    ///
    /// Its task runner hears of it with its next event or heartbeat.
    CancelPodTask = "cancel_pod_task": Post "/pods/tasks/{id}/cancel", "pods", OPERATOR,
        id PodTaskId, query NoQuery, body () [0],
        202 Json PodTask = "The task as it is now.", &[Code::NoSuchTask];
    /// Tells a task that runs something: words for its agent, or the answer to what it asks.
    ///
    /// Its task runner hears of it at once, or with its next heartbeat.
    TellPodTask = "tell_pod_task": Post "/pods/tasks/{id}/input", "pods", OPERATOR,
        id PodTaskId, query NoQuery, body NewInput [MAX_SMALL_BODY],
        202 Json PodTask = "The task as it is now.", &[Code::NoSuchTask, Code::InvalidField, Code::TaskOver];
    /// Streams the events of an agent or a workflow.
    ///
    /// The events are `event` (the task runner's own, and those whose `type` is `state`) and,
    /// last, `end`. The header `Last-Event-ID` resumes behind that event.
    PodTaskEvents = "pod_task_events": Get "/pods/tasks/{id}/events", "pods", VIEWER,
        id PodTaskId, query Follow, body () [0],
        200 Events () = "Server-sent events.", &[Code::NoSuchTask, Code::BadEventId];
    /// Lists task runners.
    ListPodRunners = "list_pod_runners": Get "/pods/runners", "pods", VIEWER,
        id NoId, query NoQuery, body () [0],
        200 Json PodRunners = "The task runners.", &[];
    /// Shows where task runners register; the path holds a key.
    PodRegistration = "pod_registration": Get "/pods/registration", "pods", ADMIN,
        id NoId, query NoQuery, body () [0],
        200 Json Registration = "The address.", &[];
    /// Shows what agents kept of a session; empty for one that nobody has used.
    SessionMessages = "session_messages": Get "/pods/sessions/{id}/messages", "pods", VIEWER,
        id SessionId, query NoQuery, body () [0],
        200 Json Messages = "The messages, oldest first.", &[];
    /// Forgets what was said in a session: its next task begins anew.
    ForgetSession = "forget_session": Delete "/pods/sessions/{id}", "pods", OPERATOR,
        id SessionId, query NoQuery, body () [0],
        204 Nothing () = "The session is forgotten.", &[Code::NoSuchSession];
    /// Keeps a secret, in place of what was called so.
    SetSecret = "set_secret": Post "/secrets", "secrets", ADMIN,
        id NoId, query NoQuery, body NewSecret [MAX_SMALL_BODY],
        200 Json Secret = "The secret, without itself.", &[Code::InvalidField];
    /// Lists all secrets, without themselves.
    ListSecrets = "list_secrets": Get "/secrets", "secrets", OPERATOR,
        id NoId, query NoQuery, body () [0],
        200 Json Secrets = "The secrets.", &[];
    /// Removes a secret. Tasks that have it keep it.
    RemoveSecret = "remove_secret": Delete "/secrets/{id}", "secrets", ADMIN,
        id SecretName, query NoQuery, body () [0],
        204 Nothing () = "The secret is gone.", &[Code::NoSuchSecret];
    /// Shows this document.
    Document = "document": Get "/openapi.json", "api", Access::Anybody,
        id NoId, query NoQuery, body () [0],
        200 Json Fields = "An OpenAPI document.", &[];
}
