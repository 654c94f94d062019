//! The contract of the hub's REST API, once: its types, its operations and its errors. The hub
//! routes and answers by them, the client (feature `client`) asks by them, and the OpenAPI
//! document and the types of the web page are made from them.
//!
//! This crate opens no file, knows no store, and decides nothing.

mod approvals;
#[cfg(feature = "client")]
mod client;
mod document;
mod events;
mod exact;
mod ids;
mod open;
mod operations;
mod page;
mod pods;
mod problem;
mod runners;
mod secrets;
#[cfg(feature = "client")]
mod sse;
mod states;
mod strict;
mod tasks;
mod tokens;

pub use approvals::{Approval, ApprovalQuery, No, Vote, Yes};
#[cfg(feature = "client")]
pub use client::{Client, ClientError, Events, Relayed, Settings};
pub use document::OPENAPI;
pub use events::{Follow, GapEvent, OutputEvent, PodStateEvent, StateEvent};
pub use exact::{Mark, Piece, exact, shown};
pub use ids::{
    ApprovalId, NoId, PathId, PodTaskId, RunId, RunnerId, RunnerName, SecretName, SessionId, TaskId, TokenId,
};
pub use open::{Fields, Open, Received, Word};
pub use operations::*;
pub use page::{Items, NoQuery, Page, page_size};
pub use pods::{
    Messages, NewAnswer, NewInput, NewPodTask, PodRunner, PodRunners, PodTask, PodTaskFilter, Registration,
};
pub use problem::{Code, Problem};
pub use runners::{Environment, Metrics, Runner, RunnerChange, RunnerFilter};
pub use secrets::{NewSecret, Secret, Secrets};
#[cfg(feature = "client")]
pub use sse::Event;
pub use states::{
    Action, ApprovalKind, ApprovalState, PodKind, PodStatus, Role, RunnerStatus, State, Stream, overall,
};
pub use strict::{body, query};
pub use tasks::{Count, NewTask, Run, Select, Selected, Task, TaskFilter, Wait, Written};
pub use tokens::{Enrolment, IssuedToken, NewToken, Token};
