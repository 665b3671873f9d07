//! Tables of cases for each rule.
