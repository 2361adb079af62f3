//! meshlab-controllers
