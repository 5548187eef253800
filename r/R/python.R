# The package in Python, what it returns, and what it says is wrong.

# The module, for what has no function of its own in R.
kinfold <- function() in_python(reticulate::import("kinfold"))

as_number <- function(value) {
  keras <- reticulate::import("keras", convert = FALSE)
  numpy <- reticulate::import("numpy", convert = FALSE)
  array <- numpy$asarray(keras$ops$convert_to_numpy(value), dtype = "float64")
  as.numeric(reticulate::py_to_r(array))
}

# An error of Python as one of R: its sentence alone.
in_python <- function(code) {
  tryCatch(code, error = function(error) {
    said <- sub("\n.*", "", conditionMessage(error))
    if (grepl("No module named '?kinfold", said)) {
      said <- paste0(
        "The Python that reticulate uses has no package kinfold. Install it there with pip, and ",
        "name that Python in the environment variable RETICULATE_PYTHON. In use: ",
        reticulate::py_config()$python, "."
      )
    }
    stop(sub("^[A-Za-z_.]*(Error|Exception): ", "", said), call. = FALSE)
  })
}
