// What only one program at a time may have and the kernel doesn't keep from others. Internal to io/.
#pragma once

#include <optional>
#include <string>

#include "io/link.h"

namespace ustack::io {

/// Takes `what` for this program: a name in the abstract namespace, which is the network namespace's own,
/// held as long as link->claim() is open (unix(7)). A program whose keeper only holds TIME-WAIT yields it.
/// EADDRINUSE: another program has it.
std::optional<OpenError> claim(const std::string& what, Link* link, bool insists = true);

}  // namespace ustack::io
