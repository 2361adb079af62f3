//! Phase 3 as a learner meets it: the lab runs, real kubectl applies files, and the checks judge what happens.

mod lab;
mod slice;
