mod load;
pub(crate) use load::load_program;
