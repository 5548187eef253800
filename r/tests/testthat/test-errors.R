x <- numbers(4, 3)
y <- c(1, 1, 2, 2)

test_that("bad data are told in one sentence", {
  expect_error(loss_circle(y + 0.5, x), "`y_true` must hold whole numbers.*Received 1.5")
  expect_error(loss_circle(c(1, NA, 2, 2), x), "`y_true` holds NA")
  expect_error(loss_circle(c("a", NA, "b", "b"), x), "`y_true` holds NA")
  expect_error(loss_circle(list(1, 2), x), "must be a vector.*Received list \\[2\\]")
  expect_error(loss_circle(y, x[, 1]), "numeric matrix.*Received numeric \\[4\\]; make it a matrix")
  expect_error(loss_circle(y, x > 0), "numeric matrix.*Received matrix \\[4 x 3\\]")
  expect_error(loss_circle(y, x * NA_real_), "`y_pred` holds NA")
  expect_error(loss_circle(y[-1], x), "`y_true` and `y_pred`")
  expect_error(loss_circle(y, x, c("a", "b"), x[1:2, ]), "both be numbers or both be names")
  expect_error(loss_contrastive(factor(y), y), "TRUE or 1 for pairs of one kind")
  expect_error(loss_contrastive(y, y), "0 for others. Received the value 2")
  expect_error(loss_circle(matrix(c(TRUE, NA), 4, 4), x), "`y_true` holds NA")
  expect_error(loss_arc_face(1:4, x, 4, 3), "from 0 to 3.*Received the id 4; subtract 1")
  expect_error(loss_arc_face(c(0, 3e9, 0, 0), x, 3, 3), "at most 2147483647 here. Received 3e\\+09")
  expect_error(loss_arc_face(c("a", "b", "c", "a"), x, 3, 3), "factor\\(y_true, levels")
})

test_that("bad arguments are told in one sentence", {
  expect_error(loss_circle(y), "`y_pred` is missing: pass `y_true` and `y_pred`")
  expect_error(loss_circle(ref_labels = y), "`ref_labels` belongs to data")
  expect_error(loss_arc_face(), "`num_classes` is missing")
  expect_error(loss_circle(y, x, gamma = "a"), "^`gamma` must be a number")
  expect_error(loss_circle(y, x, reduction = "average"), "reduction")
  expect_error(loss_circle(y, x, speed = 1), "speed")
  expect_error(loss_triplet(distance = "far"), "^Unknown distance")
  expect_error(loss_circle(y, x, NULL, NULL, TRUE, 80, 0.4, 5), "named arguments only")
})

test_that("an error is one line, without the traceback of Python", {
  said <- tryCatch(loss_circle(y, x, gamma = -1), error = conditionMessage)
  expect_false(grepl("\n|py_last_error|ValueError", said))
})

test_that("classes may be a factor", {
  keras <- reticulate::import("keras")
  value <- function(y) {
    keras$utils$set_random_seed(1L)
    loss_cos_face(y, x, num_classes = 3, embedding_size = 3)
  }
  expect_equal(value(factor(c("a", "b", "b", "c"))), value(c(0, 1, 1, 2)))
})
