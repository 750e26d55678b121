#include "shim/lending.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>

#include "io/own_descriptors.h"
#include "io/syscalls.h"
#include "shim/host_lock.h"
#include "shim/keeper.h"
#include "shim/process_state.h"
#include "shim/sandbox.h"
#include "shim/scope.h"
#include "shim/shared_host.h"
#include "shim/socket_file.h"
#include "shim/user_copy.h"
#include "stack/base/immortal.h"

namespace ustack::shim::lending {

namespace {

namespace sys = io::sys;

/// How often a writer is waited for, which needs some microseconds: not for ever for one that is stopped.
constexpr int kMostYields = 1000;

/// What this process can read lent memory by. In the keeper: of a program's process.
struct Memory {
  io::Descriptor descriptor;
  /// Its Attachment's serial number.
  uint64_t lender = 0;
  bool keeper_has_it = false;
  bool refused = false;
  /// This process has lent something.
  std::atomic<bool> used{false};
};
constinit Immortal<Memory> memory;

uint64_t own_name() {
  const Attachment* attachment = process_state().attachment;
  return attachment != nullptr ? attachment->serial : 0;
}

class Reader final : public LoanReader {
 public:
  bool is_mine(const Loan& loan) const override { return loan.lender == own_name(); }

  Settlement fetch(const Loan& loan, uintptr_t from, MutableBytes to) const override {
    if (memory->lender != loan.lender || !memory->descriptor) return elsewhere(loan);
    while (!to.empty()) {
      const long n = sys::call(SYS_pread64, memory->descriptor.get(), sys::arg(to.data()),
                               static_cast<long>(to.size()), static_cast<long>(from));
      if (n == -EINTR) continue;
      if (n <= 0) return Settlement::gone;
      from += static_cast<uintptr_t>(n);
      to = to.subspan(static_cast<size_t>(n));
    }
    return Settlement::done;
  }

 private:
  /// Nothing here reads it. Whoever lent it may be there still.
  static Settlement elsewhere(const Loan& loan) {
    for (const Attachment& each : shared_host->attached)
      if (each.serial == loan.lender) return Settlement::later;
    return Settlement::gone;
  }
};
constinit Reader the_reader;

bool open_memory() {
  if (memory->descriptor) return true;
  if (memory->refused) return false;
  io::Descriptor opened(
      static_cast<int>(sys::call(SYS_openat, AT_FDCWD, sys::arg("/proc/self/mem"), O_RDONLY | O_CLOEXEC)));
  // Without /proc (chroot, container): asked once.
  memory->refused = !opened || !io::move_high(opened).ok();
  if (memory->refused) return false;
  memory->descriptor = std::move(opened);
  memory->keeper_has_it = false;
  return true;
}

}  // namespace

const LoanReader& reader() { return the_reader; }

uint64_t lender(SharedHost& shared) {
  const uint64_t name = own_name();
  if (name == 0 || shared.attached_count != 1 || sandbox::active() || !open_memory()) return 0;
  memory->lender = name;
  // A keeper that is started later inherits the descriptor.
  if (!memory->keeper_has_it && keeper::alive(shared) &&
      !keeper::share_memory(name, memory->descriptor.get()))
    return 0;
  memory->keeper_has_it = true;
  memory->used.store(true, std::memory_order_relaxed);
  return name;
}

Status check(Bytes bytes) {
  if (!user_pointers_checked()) {
    // As where they are copied: who gives a bad pointer has a fault of its own, here at either end.
    std::byte unused;
    if (Status s = copy_from_user(&unused, &bytes.front(), 1); !s.ok()) return s;
    return copy_from_user(&unused, &bytes.back(), 1);
  }
  constexpr uintptr_t kPage = 4096;
  const uintptr_t start = reinterpret_cast<uintptr_t>(bytes.data()) & ~(kPage - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size();
  const long result =
      sys::call(SYS_madvise, static_cast<long>(start),
                static_cast<long>((end - start + kPage - 1) & ~(kPage - 1)), MADV_POPULATE_READ);
  if (result == 0 || result == -EINTR || result == -EAGAIN) return {};
  // EINVAL: an old kernel, or a mapping of a device.
  return Error{result == -EINVAL ? EOPNOTSUPP : EFAULT};
}

void settle_all(SharedHost& shared) {
  if (!memory->used.exchange(false)) return;
  for (OpenFile& file : shared.files) {
    if (file.kind() != OpenFile::Kind::socket) continue;
    if (Socket* socket = static_cast<SocketFile&>(file).socket_if_any()) socket->settle_loans();
  }
}

void adopt(uint64_t lender, io::Descriptor given) {
  memory->descriptor = std::move(given);
  memory->lender = lender;
}

void forget(uint64_t lender) {
  if (memory->lender == lender) memory->descriptor.reset();
}

int descriptor() { return memory->descriptor.get(); }

void take_back() {
  if (!memory->used.load(std::memory_order_relaxed) || Scope::inside() || shared_host == nullptr) [[likely]]
    return;
  Scope scope;
  HostLock lock;
  settle_all(*shared_host);
  // Who writes without the lock may be in the middle of a frame that was lent.
  for (LinkQueue& queue : shared_host->queues) {
    const uint64_t written = queue.written;
    for (int tries = 0; tries < kMostYields && queue.writer != nullptr && queue.written == written; ++tries) {
      lock.unlock();
      sys::call(SYS_sched_yield);
      lock.lock();
    }
  }
}

void close() {
  memory->descriptor.reset();
  memory->lender = 0;
  memory->keeper_has_it = memory->refused = false;
  memory->used.store(false);
}

void after_fork_in_child() {
  memory->descriptor.release();  // closed with the parent's others
  close();
}

}  // namespace ustack::shim::lending
