# Writes the help pages from the table and from what the classes in Python say of themselves:
#   Rscript tools/help.R FOLDER
# with the package's own folder as the working directory, and RETICULATE_PYTHON set.

folder <- commandArgs(trailingOnly = TRUE)[1L]
package <- new.env()
for (file in c("python.R", "data.R", "table.R", "losses.R")) {
  sys.source(file.path("R", file), package)
}
losses <- reticulate::import("kinfold")$losses
clean <- reticulate::import("inspect")$cleandoc

escape <- function(text) {
  text <- gsub("([\\\\%{}])", "\\\\\\1", text)
  text <- gsub("``?([^`]+)``?", "\\\\code{\\1}", text)
  text <- gsub("\\bNone\\b", "NULL", text)
  gsub("\\bTrue\\b", "TRUE", text)
}

# The parts of a docstring of Google's style: what stands before its first section, by name.
sections <- function(class) {
  lines <- strsplit(clean(losses[[class]]$`__doc__`), "\n")[[1L]]
  lines <- lines[!grepl("^The (other )?arguments are those of ", lines)]
  heads <- grep("^(Args|Raises|Reference|References|Example|Examples|Returns):$", lines)
  part <- findInterval(seq_along(lines), heads)
  parts <- split(lines, part)
  names(parts) <- c("about", sub(":$", "", lines[heads]))[as.integer(names(parts)) + 1L]
  lapply(parts, function(part) part[!grepl("^[A-Z][a-z]+:$", part)])
}

# Its arguments: a name, then a text that may go on in lines further in.
arguments <- function(lines) {
  if (is.null(lines)) {
    return(NULL)
  }
  lines <- sub("^    ", "", lines[nzchar(lines)])
  starts <- grep("^[a-z_]+: ", lines)
  texts <- tapply(lines, findInterval(seq_along(lines), starts), function(part) {
    paste(sub("^[a-z_]+: ", "", trimws(part)), collapse = " ")
  })
  stats::setNames(as.vector(texts), sub(":.*", "", lines[starts]))
}

# Those that a loss has of its base, which says what they are.
SHARED <- lapply(
  list(pairs = "PairLoss", classes = "PrototypeLoss"),
  function(class) arguments(sections(class)$Args)
)

# Paragraphs; those further in are equations.
about <- function(lines) {
  text <- paste(lines, collapse = "\n")
  blocks <- strsplit(text, "\n\n+")[[1L]]
  vapply(blocks, function(block) {
    if (!startsWith(block, "    ")) {
      return(escape(block))
    }
    block <- gsub("([\\\\%{}])", "\\\\\\1", gsub("(^|\n)    ", "\\1", block))
    paste0("\\preformatted{", block, "}")
  }, "", USE.NAMES = FALSE)
}

WHAT <- list(
  y_true = list(
    pairs = paste(
      "Labels: integers (also as doubles), a factor, characters or logicals, one an example; or a",
      "matrix [examples, labels] of 0 and 1, where examples are of one kind when they share a label;",
      "or a logical matrix, of which pairs are of one kind. With \\code{y_pred} missing too, the",
      "function returns a loss object."
    ),
    classes = paste(
      "Class ids from 0 to \\code{num_classes - 1}, or a factor whose levels are all the classes.",
      "With \\code{y_pred} missing too, the function returns a loss object."
    ),
    partners = paste(
      "\\code{NULL}, as the pairs themselves say what belongs together. With \\code{y_pred} missing",
      "too, the function returns a loss object."
    ),
    distances = paste(
      "1 or TRUE for pairs of one kind, 0 or FALSE for others. With \\code{y_pred} missing too, the",
      "function returns a loss object."
    )
  ),
  y_pred = list(
    pairs = "Embeddings, a numeric matrix with one row an example.",
    classes = "Embeddings, a numeric matrix with one row an example.",
    partners = paste(
      "One side of each pair, a numeric matrix; or both, an array [pairs, 2, d].",
      "\\code{ref_embeddings} holds the other side."
    ),
    distances = "The distance of each pair, a numeric vector."
  ),
  ref_labels = "Labels of the references, of the kind of \\code{y_true}; \\code{NULL} means those.",
  ref_embeddings = list(
    pairs = "References, a numeric matrix; \\code{NULL} means \\code{y_pred}.",
    partners = "The other side of each pair, a numeric matrix; row i belongs to row i."
  ),
  num_classes = "How many classes there are.",
  embedding_size = "Columns of \\code{y_pred}.",
  remove_diagonal = "Whether the reference at an anchor's own position is no positive of it.",
  `...` = paste(
    "Further arguments of the class in Python, by name, such as \\code{normalize = TRUE} or",
    "\\code{block_size}."
  ),
  reduction = paste(
    "\"sum_over_batch_size\" or \"mean\", \"sum\", \"mean_with_sample_weight\", or \"none\" or",
    "\\code{NULL} for one value an example."
  ),
  name = "Name of the loss object.",
  dtype = "Data type of the computation; \\code{NULL} means that of Keras, float32."
)

# What the general texts say too much of.
OWN <- list(
  n_pairs = list(
    y_true = "Class ids as integers, a factor, characters or logicals, one an example.",
    ref_labels = "Not taken: the pairs are those of one batch.",
    ref_embeddings = "Not taken: the pairs are those of one batch."
  ),
  angular = list(y_true = "Class ids as integers, a factor, characters or logicals, one an example."),
  proxy_anchor = list(reduction = paste(
    "\"sum_over_batch_size\" or \"mean\", which are the same: the loss is one number per batch."
  ))
)

usage <- function(name, made) {
  one <- function(argument, default) {
    if (is.symbol(default) && !nzchar(as.character(default))) {
      return(argument)
    }
    paste(argument, "=", deparse(default))
  }
  all <- mapply(one, names(formals(made)), as.list(formals(made)))
  c(paste0(name, "("), paste0("  ", paste(all, collapse = ",\n  ")), ")")
}

page <- function(name, entry) {
  called <- paste0("loss_", name)
  made <- package[[called]]
  said <- sections(entry$class)
  texts <- c(arguments(said$Args), SHARED[[entry$data]])
  describe <- function(argument) {
    text <- OWN[[name]][[argument]]
    if (is.null(text)) text <- WHAT[[argument]]
    if (is.list(text)) text <- text[[entry$data]]
    if (is.null(text)) text <- escape(texts[[argument]])
    paste0("\\item{", if (argument == "...") "\\dots" else argument, "}{", text, "}")
  }
  blocks <- about(said$about)
  reference <- escape(paste(trimws(said$Reference), collapse = " "))
  compile <- if (entry$data == "classes") {
    "# Its prototypes are trained by kinfold()$EmbeddingModel, compiled with the object:"
  } else {
    "# For compile(loss = ):"
  }
  sizes <- if (entry$data == "classes") "num_classes = 10, embedding_size = 64" else ""
  c(
    "% Written by tools/help.R.",
    paste0("\\name{", called, "}"),
    paste0("\\alias{", called, "}"),
    paste0("\\title{", sub("[.:]$", "", sub("(: |\n).*", "", blocks[1L])), "}"),
    "\\description{", paste(blocks, collapse = "\n\n"), "}",
    "\\usage{", usage(called, made), "}",
    "\\arguments{", vapply(names(formals(made)), describe, "", USE.NAMES = FALSE), "}",
    "\\value{",
    "A loss object of Keras where \\code{y_true} and \\code{y_pred} are missing; else the loss, a",
    "number, or one number an example where the reduction is \"none\". Tensors give a tensor.",
    if (entry$data == "classes") {
      "The prototypes are drawn anew for each object, and so at each call with data."
    },
    "}",
    if (nzchar(reference)) c("\\references{", reference, "}"),
    "\\examples{",
    "\\dontrun{",
    compile,
    paste0("loss <- ", called, "(", sizes, ")"),
    "}",
    "}"
  )
}

for (name in names(package$LOSSES)) {
  writeLines(page(name, package$LOSSES[[name]]), file.path(folder, paste0("loss_", name, ".Rd")))
}
