#include "io/claim.h"

#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "io/syscalls.h"
#include "io/yield.h"

namespace ustack::io {

std::optional<OpenError> claim(const std::string& what, Link* link, bool insists) {
  Descriptor holder(static_cast<int>(sys::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  if (!holder) return OpenError{EMFILE, "no descriptors left for the host's own use: raise RLIMIT_NOFILE"};
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::string text = "ustack " + what;
  text.copy(name.sun_path + 1, sizeof name.sun_path - 1);
  auto length = static_cast<long>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  long result = retry_while_busy(text, -EADDRINUSE, insists,
                                 [&] { return sys::call(SYS_bind, holder.get(), sys::arg(&name), length); });
  if (sys::failed(result)) {
    int code = static_cast<int>(-result);
    return OpenError{code, "can't claim " + what + ": " + std::strerror(code),
                     code == EADDRINUSE ? text : std::string()};
  }
  link->claim() = std::move(holder);
  return std::nullopt;
}

}  // namespace ustack::io
