// RecipeCall: one call of the lock and election services: what it asks of the store, and its
// answer.
//
// Thread: the door's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "conclave/server/recipes/caller_client.h"

namespace conclave::recipes {

// Where a call's answer goes. The last word is exactly one Done or Fail.
class Answerer {
 public:
  virtual ~Answerer() = default;
  // A message of a stream.
  virtual void Message(std::string message) = 0;
  // The only message of a unary call.
  virtual void Done(std::string message) = 0;
  virtual void Fail(int code, std::string_view text) = 0;
};

class RecipeCall {
 public:
  virtual ~RecipeCall() = default;
  virtual void Start() = 0;
  // The call ends soon; if it has queued, without leaving a key there.
  virtual void Cancel() = 0;
  // A stream's messages have left.
  virtual void OnSent(uint64_t /*bytes*/) {}
};

// Null: `request` is no message of the method's type, or there is no such method. `client` and
// `answerer` outlive the call.
std::unique_ptr<RecipeCall> MakeRecipeCall(std::string_view method, std::string_view request,
                                           std::shared_ptr<CallerClient> client,
                                           Answerer* answerer);

}  // namespace conclave::recipes
