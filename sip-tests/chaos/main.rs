//! Real processes, killed at random while calls are made.
