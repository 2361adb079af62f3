//! meshlab-kubelet
