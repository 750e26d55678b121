// MSG_ZEROCOPY: the program's memory is lent to the host instead of being copied (stack/mem/loan.h).
//
// Threads of the program read what it has lent where it is. Only the keeper may need it besides: it goes on
// when the program computes. It has neither the program's memory nor rights to look into it, so the program
// gives it a descriptor of /proc/self/mem, which reads that one address space whoever has it, and nothing at
// all once the program has ended or exec'd. Where there could be others, relatives that share the host, or
// where the program is about to leave, what is lent is copied.
#pragma once

#include <cstdint>

#include "io/descriptor.h"
#include "stack/base/bytes.h"
#include "stack/mem/loan.h"

namespace ustack::shim {

struct SharedHost;

namespace lending {

/// Below this many bytes a copy costs less than lending.
inline constexpr size_t kLeast = 8192;

/// For the host's pool of blocks.
const LoanReader& reader();
/// By what name this process lends now; 0: it can't. Lock held.
uint64_t lender(SharedHost& shared);
/// `bytes`, at least one, can be read (user_copy.h: each of their pages is looked at with
/// USTACK_EFAULT=check). EFAULT; EOPNOTSUPP: they are memory of a kind that can't be lent. Lock not held.
Status check(Bytes bytes);
/// Copies all that this process has lent and that is still needed: before it ends, leaves its host, or shares
/// it with a child. Lock held.
void settle_all(SharedHost& shared);

/// The same before the program unmaps memory, perhaps what it has lent (the kernel, which pins pages, allows
/// that at once), or forbids itself system calls; no thread is writing from it afterwards. Costs a load where
/// nothing was lent. Takes the lock; does nothing in a Scope.
void take_back();

/// The keeper's side. It was given the descriptor that reads what `lender` lends.
void adopt(uint64_t lender, io::Descriptor memory);
/// A process has ended.
void forget(uint64_t lender);
/// The descriptor, which a keeper inherits; -1: there is none.
int descriptor();
/// This process has left its host.
void close();
/// In the child of a fork: nothing is lent by it.
void after_fork_in_child();

}  // namespace lending
}  // namespace ustack::shim
