//! meshlab-images
