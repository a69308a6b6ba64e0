// What a variable of the environment says about an algorithm that a model would choose or not.
#pragma once

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace convnet {

enum class Choice { kAuto, kOff, kAlways };

// Throws std::invalid_argument for anything but auto, off and always; auto where it is not set.
inline Choice choice_of(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || std::strcmp(text, "auto") == 0) return Choice::kAuto;
  if (std::strcmp(text, "off") == 0) return Choice::kOff;
  if (std::strcmp(text, "always") == 0) return Choice::kAlways;
  throw std::invalid_argument(std::string(variable) + ": expected auto, off or always, got " +
                              text);
}

}  // namespace convnet
