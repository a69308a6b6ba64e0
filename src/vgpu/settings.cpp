#include "settings.h"

#include <cstdlib>

namespace vgpu {

int env(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? std::atoi(value) : otherwise;
}

std::string env_text(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

int log_level() {
  static const int level = env("VGPU_LOG", 0);
  return level;
}

}  // namespace vgpu
