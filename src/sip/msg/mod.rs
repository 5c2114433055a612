//! (see SPEC)
