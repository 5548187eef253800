test_that("loss_circle gives the values of keras.losses.Circle", {
  file <- golden()
  expect_gt(length(file$cases), 20)
  for (case in file$cases) {
    y <- file$get(case, "y")
    x <- file$get(case, "x")
    ref <- if (case$refs) list(file$get(case, "ref_y"), file$get(case, "ref_x"))
    value <- function(reduction) {
      loss_circle(y, x, ref[[1]], ref[[2]], case$remove_diagonal, case$gamma, case$margin,
        reduction = reduction
      )
    }
    expect_near(value("none"), file$get(case, "rows"))
    if (!case$refs && is.null(file$get(case, "weight"))) {
      expect_near(value(case$reduction), file$get(case, "value"))
    }
  }
})

test_that("the interface is that of keras3", {
  expect_equal(
    as.list(formals(loss_circle)),
    alist(
      y_true = , y_pred = , ref_labels = NULL, ref_embeddings = NULL, remove_diagonal = TRUE,
      gamma = 80L, margin = 0.4, ... = , reduction = "sum_over_batch_size", name = "circle",
      dtype = NULL
    )
  )
})

test_that("labels of every type tell the same things apart", {
  x <- numbers(6, 4)
  ids <- c(1L, 2L, 1L, 3L, 2L, 3L)
  value <- loss_circle(ids, x, reduction = "none")
  expect_length(value, 6)
  words <- c("b", "a", "c")[ids]
  for (y in list(as.numeric(ids), matrix(ids), words, factor(words), ids + 2^40)) {
    expect_equal(loss_circle(y, x, reduction = "none"), value)
  }
  expect_equal(
    loss_circle(ids == 1L, x), loss_circle(ifelse(ids == 1L, 7L, 0L), x)
  )
})

test_that("references have labels of the same kind, whatever the levels of a factor", {
  x <- numbers(4, 3)
  r <- numbers(5, 3, seed = 2)
  value <- loss_circle(c(1, 2, 2, 3), x, c(3, 1, 2, 2, 9), r, reduction = "none")
  words <- c("x", "y", "z", 4:9)
  y <- factor(words[c(1, 2, 2, 3)])
  ref <- factor(words[c(3, 1, 2, 2, 9)])
  expect_equal(loss_circle(y, x, ref, r, reduction = "none"), value)
})

test_that("several labels an example, and pairs", {
  x <- numbers(4, 3)
  y <- c(1, 1, 2, 2)
  value <- loss_circle(y, x, reduction = "none")
  expect_equal(loss_circle(cbind(y == 1, y == 2) + 0L, x, reduction = "none"), value)
  expect_equal(loss_circle(outer(y, y, "=="), x, reduction = "none"), value)
})

test_that("tensors give tensors", {
  ops <- reticulate::import("keras", convert = FALSE)$ops
  x <- numbers(4, 3)
  value <- loss_circle(c(1, 1, 2, 2), ops$convert_to_tensor(x))
  expect_s3_class(value, "python.builtin.object")
  expect_near(as_number(value), loss_circle(c(1, 1, 2, 2), x))
})
