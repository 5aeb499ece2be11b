// Hub: the one thread behind all picking channels of the process.
//
// It polls their connections and reports each change of state, wakes channels when they are due,
// and runs all their work but the picks; so a channel's own logic has one thread. gRPC reports
// state changes to a completion queue only while one waits for them, and that waiting is also what
// makes gRPC poll a connection that no call uses.
//
// The thread starts with the first channel and ends with the last.
#pragma once

#include <grpcpp/channel.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "conclave/base/time.h"

namespace conclave::picking {

class Hub {
 public:
  // A picking channel. Its functions run on the hub's thread.
  class Member {
   public:
    virtual ~Member() = default;
    virtual void OnState(uint64_t connection, grpc_connectivity_state state) = 0;
    // After states were reported, after a wake-up, and when due. Gives when it is due next.
    virtual Instant OnTurn(Instant now) = 0;
  };

  static std::shared_ptr<Hub> Shared();
  // Waits for the thread. If a removed connection still has calls under way, that can take as long
  // as a watch (kWatchMin to kWatchMax).
  ~Hub();
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  uint64_t Join(Member* member);
  // After this nothing of the member runs, unless this is called by it.
  void Leave(uint64_t member);
  // Reports the states of `channel`, which it has connect, until nobody else owns it any more. Not
  // the first state, which is IDLE.
  void Watch(uint64_t member, uint64_t connection, const std::shared_ptr<grpc::Channel>& channel);
  // Has the member's OnTurn run soon; from any thread, at any time, also after the hub's end.
  std::function<void()> Waker(uint64_t member);

 private:
  struct Queue;
  struct Event;
  struct StateEvent;
  struct WakeEvent;

  Hub();
  void Run();
  // The members that the event concerns are added to *touched.
  void Handle(Event* event, std::set<uint64_t>* touched);
  void Turn(const std::set<uint64_t>& touched);
  // Runs `action` on the member if it is still there.
  void With(uint64_t number, const std::function<void(Member&)>& action);
  Instant NextDue();

  const std::shared_ptr<Queue> queue_;
  std::mutex mutex_;
  std::condition_variable idle_;
  struct Entry {
    Member* member = nullptr;
    Instant due{};
  };
  std::map<uint64_t, Entry> members_;  // guarded by mutex_
  uint64_t next_member_ = 1;           // guarded by mutex_
  uint64_t running_ = 0;               // guarded by mutex_: the member whose function runs
  std::thread thread_;
};

// The process's monotonic clock.
Instant SteadyNow();

}  // namespace conclave::picking
