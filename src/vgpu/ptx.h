// The old name of ptx/instruction.h.
#pragma once
#include "ptx/instruction.h"
