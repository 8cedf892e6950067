//! What a user would run without Guard, each in its simplest form.

pub(crate) mod fanotify;
pub(crate) mod landlock;
pub(crate) mod supervisor;
