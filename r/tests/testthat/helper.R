`%||%` <- function(a, b) if (is.null(a)) b else a

# The cases of the golden file: what keras.losses.Circle gave.
golden <- function() {
  file <- reticulate::import("numpy")$load("keras_circle.npz")
  cases <- reticulate::import("json")$loads(as.character(file$f[["cases"]]))
  list(
    cases = cases,
    get = function(case, key) file$get(paste0(case$name, "/", key))
  )
}

numbers <- function(n, d, seed = 1) {
  set.seed(seed)
  x <- matrix(rnorm(n * d), n)
  x / sqrt(rowSums(x^2))
}

expect_near <- function(object, expected, tolerance = 1e-5) {
  expect_equal(as.vector(object), as.vector(expected), tolerance = tolerance)
}
