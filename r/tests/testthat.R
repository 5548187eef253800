library(testthat)
library(kinfold)

test_check("kinfold")
