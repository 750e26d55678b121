#include "shim/joining.h"

#include <sys/socket.h>

#include <cerrno>

#include "io/syscalls.h"
#include "io/yield.h"
#include "shim/process.h"

namespace ustack::shim::joining {

namespace sys = io::sys;

Result<io::Descriptor> join(std::string_view device, const io::Config& config) {
  Result<io::Descriptor> channel = io::knock(device);
  if (!channel.ok()) return channel;
  const __kernel_timespec patience{5, 0};
  sys::setsockopt(channel->get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const Introduction introduction{config.identity(), Process::id()};
  sys::call(SYS_sendto, channel->get(), sys::arg(&introduction), sizeof introduction, MSG_NOSIGNAL);
  int32_t status = ETIMEDOUT;
  long n;
  do n = sys::call(SYS_recvfrom, channel->get(), sys::arg(&status), sizeof status, 0);
  while (n == -EINTR);
  if (n == 0) return Error{ESHUTDOWN};
  if (n == sizeof status && status != 0) return Error{status};
  if (n != sizeof status) return Error{ETIMEDOUT};
  if (!io::move_high(*channel).ok()) return Error{EMFILE};
  return channel;
}

}  // namespace ustack::shim::joining
