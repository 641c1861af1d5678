//! Network namespaces, veth pairs and packets for tests.
