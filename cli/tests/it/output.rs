//! What the program prints, in every format, and how it ends.
