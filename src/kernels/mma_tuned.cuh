// Tiles and splits that were measured to be faster than those of the rule in mma_plan.cu.
//
// The table is mma_tuned.inc. Its rows are found by pass, math and product alone, and apply on
// every GPU, so that a plan stays a function of shape and `math`, and a result has the same bits
// everywhere; where a row was measured is a note. set_tile_choices() of ops.h puts another table in
// its place while a program runs: benchmarks time candidates so, and tests see that rows are
// obeyed.
#pragma once

#include <string>

#include "conv.cuh"

namespace convnet {

struct TunedTile {
  const char* measured_on;
  Pass pass;
  Math math;
  Product product;
  TileKind tile;
  unsigned splits;
};

// Sets `tile` and `splits` where the table in force has this product; says whether it has.
bool find_tuned(Pass pass, Math math, const Product& product, TileKind* tile, unsigned* splits);

}  // namespace convnet
