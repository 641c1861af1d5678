//! The audit against each kernel of the matrix. Needs root.
mod audit_kernel;
