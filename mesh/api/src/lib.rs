//! meshlab-istio-api
