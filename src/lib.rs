//! Ironclad
