// Why something could not be set up, for the person who asked for it.
#pragma once

#include <string>

namespace ustack::io {

/// An errno, and in plain words what is wrong, which right or thing is missing and how to get it. One line of
/// text without a full stop's newline; several hints are separated by "; ".
struct OpenError {
  int code = 0;
  std::string message;
  /// What is wanted is another host's of this library: the name that its keeper can be asked by (yield.h).
  std::string user{};
};

}  // namespace ustack::io
