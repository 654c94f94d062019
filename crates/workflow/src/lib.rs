//! The language of workflows: from YAML or JSON to what is to be done, and the expressions in it.
//!
//! Nothing is run here, and no file is opened: the task runner, `lint` and the hub all read a
//! workflow with this and so say the same of it (docs/workflows.md).

#![forbid(unsafe_code)]

mod action_file;
mod actions;
mod expression;
mod matrix;
mod model;
mod near;
mod read;
mod script;
mod value;

pub use action_file::{ActionFile, Using};
pub use actions::{Builtin, Source, Tool, Uses};
pub use expression::{CONTEXTS, Condition, Failed, Lookup, Malformed, Status, Template};
pub use matrix::{MAX_ROWS, Matrix, NoMatrix, fill_node};
pub use model::{
    Action, AgentStep, Call, Input, Job, Level, Problem, Report, Shell, Step, Workflow, minutes,
};
pub use near::nearest;
pub use read::is_workflow_file;
pub use script::{Dialect, NoScript, PYTHON_FILLER, Script};
pub use value::Item;
