//! What a person or a script can ask of a running node, and what it answers. The same types travel as
//! JSON lines over the control socket (SPEC section 8); `app` sees nothing else of the node.

mod command;
mod event;
mod people;
mod reply;
mod status;

pub use command::*;
pub use event::*;
pub use people::*;
pub use reply::*;
pub use status::*;
